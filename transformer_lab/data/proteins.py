"""Structures of proteins to fetch: six well-known ones, one with its relatives, 606 chains without a gap."""

from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
from jaxtyping import Float32
from torch import Tensor

from .registry import DATASETS, fetch, table

ATOMS = ("N", "CA", "C", "O", "CB")
RESIDUES = dict(
    zip(
        "ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL".split(),
        "ARNDCQEGHILKMFPSTWYV",
        strict=True,
    )
)
BACKBONES = {row["name"].removesuffix(".pdb"): row for row in table("protein_backbones.csv")}


@dataclass(frozen=True, eq=False)
class Chain:
    """One chain of a protein.

    Args:
        name: of its file and of the chain, such as "1crn_A".
        sequence: a letter for each of its residues.
        atoms: where the atoms ``ATOMS`` of each residue are, in ångström; NaN where there is none, as CB in
            glycine.
    """

    name: str
    sequence: str
    atoms: Float32[Tensor, "N 5 3"]


def read_chain(path: str | PathLike[str], chain: str | None = None) -> Chain:
    """A chain from a file of the Protein Data Bank: the 20 common amino acids of its first model.

    Where an atom was seen in several places, the first one listed counts. Residues that were not seen in the
    experiment are not in the file: ``gaps`` finds where they are missing.

    Args:
        chain: its letter. None: the first chain in the file.

    Raises:
        ValueError: the file has no such chain.
    """
    places: dict[str, dict[str, list[float]]] = {}  # of a residue, by its number and letter, of each atom
    names: dict[str, str] = {}
    for line in Path(path).read_text("ascii").splitlines():
        if line.startswith("ENDMDL"):
            break
        if not line.startswith("ATOM  ") or (residue := line[17:20]) not in RESIDUES:
            continue
        chain = line[21] if chain is None else chain
        if line[21] == chain:
            number = line[22:27]
            if names.setdefault(number, residue) == residue:  # else two residues were seen in one place
                where = [float(line[start : start + 8]) for start in (30, 38, 46)]
                places.setdefault(number, {}).setdefault(line[12:16].strip(), where)
    if not names:
        raise ValueError(f"{Path(path).name} has no chain {chain or 'of amino acids'}")
    nowhere = [float("nan")] * 3
    return Chain(
        name=f"{Path(path).stem}_{chain}",
        sequence="".join(RESIDUES[residue] for residue in names.values()),
        atoms=torch.tensor([[places[number].get(atom, nowhere) for atom in ATOMS] for number in names]),
    )


def gaps(chain: Chain) -> list[int]:
    """Where a chain is torn: the places of residues whose CA is more than 4.2 Å from the one before.

    Two residues that are bound to each other are 3.8 Å apart.
    """
    steps = chain.atoms[:, ATOMS.index("CA")].diff(dim=0).norm(dim=-1)
    return [i + 1 for i, step in enumerate(steps.tolist()) if not step <= 4.2]


def protein(name: str, *, folder: str | PathLike[str] | None = None) -> Chain:
    """One of six well-known proteins, without a gap; of several models the first.

    Args:
        name: "1crn", crambin, 46 residues; "1ubi", ubiquitin, 76; "1l2y", the Trp-cage, 20; "1aki",
            lysozyme, 129; "5L33", 106, and "6MRR", 68, which people designed.
        folder: where to keep the file, as in ``registry.fetch``.

    Raises:
        ValueError: another name.
        FetchError: the file cannot be had.
    """
    names = [file.removesuffix(".pdb") for file in DATASETS["proteins"].files]
    if name not in names:
        raise ValueError(f"there is no protein {name!r}; there are {', '.join(names)}")
    return read_chain(fetch("proteins", file=f"{name}.pdb", folder=folder))


def alignment_1a3a(*, folder: str | PathLike[str] | None = None) -> tuple[Chain, list[str]]:
    """A protein and 1,024 sequences of its family, written below each other: columns that change together
    are near each other in space.

    Returns:
        Chain A of 1A3A, 145 residues, and the rows of 145 letters; "-" is a gap. The first row is the chain's
        own sequence. What other sequences have in addition is left out.

    Raises:
        FetchError: a file cannot be had.
    """
    text = fetch("protein_msa_1a3a", file="1a3a_1_A.a3m", folder=folder).read_text("ascii")
    rows = ["".join(entry.split("\n")[1:]) for entry in text.split(">")[1:]]
    added = dict.fromkeys(range(ord("a"), ord("z") + 1))  # small letters: insertions
    chain = read_chain(fetch("protein_msa_1a3a", file="1a3a.pdb", folder=folder), "A")
    return chain, [row.translate(added) for row in rows]


def backbones(
    names: Iterable[str] | None = None, *, folder: str | PathLike[str] | None = None
) -> list[Chain]:
    """Chains of 40 to 128 residues from crystals, each without a gap and with its whole backbone.

    There is no split. Some chains are alike in up to 70 % of their residues and a few have the same sequence:
    put what is alike into one part before you divide them.

    Args:
        names: keys of ``BACKBONES``, which gives the length of each, such as "1ail". None: all 606, for which
            98 MB are fetched, file by file.
        folder: where to keep the files, as in ``registry.fetch``.

    Raises:
        ValueError: an unknown name, or a file that does not hold the listed chain.
        FetchError: a file cannot be had.
    """
    chains = []
    for name in BACKBONES if names is None else names:
        if name not in BACKBONES:
            raise ValueError(f"there is no backbone {name!r}; BACKBONES lists the {len(BACKBONES)} there are")
        listed = BACKBONES[name]
        chain = read_chain(fetch("protein_backbones", file=listed["name"], folder=folder), listed["chain"])
        if len(chain.sequence) != int(listed["length"]) or gaps(chain):
            raise ValueError(
                f"{listed['name']} must give {listed['length']} residues without a gap, got"
                f" {len(chain.sequence)}, torn at {gaps(chain)}"
            )
        chains.append(chain)
    return chains
