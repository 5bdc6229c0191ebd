"""Proteins from made-up files that are laid out like the real ones; and, where slow, from those."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.mirrors import make_up
from tests.strict import require
from transformer_lab.data import proteins
from transformer_lab.data.proteins import ATOMS, Chain, backbones, gaps, protein, read_chain
from transformer_lab.data.registry import DATASETS


def atom(name, residue, chain, number, where, *, kind="ATOM", place=" ", insertion=" "):
    """A line of the Protein Data Bank's format, column by column."""
    x, y, z = where
    return (
        f"{kind:<6}{1:5d}  {name:<3}{place}{residue} {chain}{number:4d}{insertion}   "
        f"{x:8.3f}{y:8.3f}{z:8.3f}{1:6.2f}{0:6.2f}          {name[0]:>2}\n"
    )


def residue(name, chain, number, *, at=None, atoms=ATOMS, **others):
    """All five atoms, each at a place that says which it is; CA 3.8 Å from that of the residue before."""
    at = 3.8 * number if at is None else at
    return "".join(atom(a, name, chain, number, (at, ATOMS.index(a), number), **others) for a in atoms)


def stretch(chain, letters, start=1):
    return "".join(residue(name, chain, start + i) for i, name in enumerate(letters))


@pytest.fixture
def read(tmp_path):
    def of(text, chain=None):
        path = tmp_path / "1abc.pdb"
        path.write_text(text, "ascii")
        return read_chain(path, chain)

    return of


def test_the_first_chain_residue_by_residue_atom_by_atom(read):
    water = atom("O", "HOH", "B", 90, (0, 0, 0), kind="HETATM")
    text = "HEADER    NOTHING\n" + stretch("B", ["MET", "GLY", "TRP"], 7) + water + stretch("A", ["ALA"])
    chain = read(text)
    assert (chain.name, chain.sequence) == ("1abc_B", "MGW")
    assert chain.atoms.dtype == torch.float32 and chain.atoms.shape == (3, 5, 3)
    places = [[[3.8 * number, a, number] for a in range(5)] for number in (7, 8, 9)]
    torch.testing.assert_close(chain.atoms, torch.tensor(places))
    assert read(text, "A").sequence == "A" and read(text, "A").name == "1abc_A"


def test_all_twenty_letters(read):
    names = "ALA CYS ASP GLU PHE GLY HIS ILE LYS LEU MET ASN PRO GLN ARG SER THR VAL TRP TYR"
    assert read(stretch("A", names.split())).sequence == "ACDEFGHIKLMNPQRSTVWY"


def test_what_is_not_there_is_nan(read):
    chain = read(residue("GLY", "A", 1, atoms=ATOMS[:4]) + residue("SER", "A", 2))
    assert chain.atoms.isnan().any(-1).tolist() == [[False] * 4 + [True], [False] * 5]


def test_of_several_places_and_models_the_first(read):
    seen_twice = residue("SER", "A", 1, at=1.0, place="A") + residue("SER", "A", 1, at=2.0, place="B")
    glycine = residue("GLY", "A", 2, at=3.0, place="A", atoms=ATOMS[:4])
    two_kinds = glycine + residue("SER", "A", 2, at=4.0, place="B")
    inserted = residue("LYS", "A", 2, at=5.0, insertion="A")
    model = seen_twice + two_kinds + inserted
    chain = read(f"MODEL        1\n{model}ENDMDL\nMODEL        2\n{stretch('A', ['TRP'] * 9)}ENDMDL\n")
    assert chain.sequence == "SGK"
    assert chain.atoms[:, 1, 0].tolist() == [1.0, 3.0, 5.0]
    assert chain.atoms[:, 4].isnan().any(-1).tolist() == [False, True, False]


def test_where_a_chain_is_torn(read):
    text = stretch("A", ["ALA"] * 3) + stretch("A", ["ALA"] * 2, 5) + stretch("A", ["ALA"], 20)
    assert gaps(read(text)) == [3, 5]
    without_ca = residue("ALA", "A", 2, atoms=("N", "C"))
    assert gaps(read(residue("ALA", "A", 1) + without_ca)) == [1]
    assert gaps(read(stretch("A", ["ALA"] * 9))) == []


def test_a_protein_by_its_name(tmp_path, monkeypatch):
    make_up(monkeypatch, tmp_path, "proteins", {"5L33.pdb": stretch("A", ["HIS", "MET"]).encode()})
    assert (protein("5L33").name, protein("5L33").sequence) == ("5L33_A", "HM")


def test_an_alignment_without_what_others_have_in_addition(tmp_path, monkeypatch):
    contents = {
        "1a3a_1_A.a3m": b">\nLF\nK\n>other\nL-ggKg\n",
        "1a3a.pdb": (stretch("C", ["TRP"]) + stretch("A", ["LEU", "PHE", "LYS"])).encode(),
    }
    make_up(monkeypatch, tmp_path, "protein_msa_1a3a", contents)
    chain, rows = proteins.alignment_1a3a()
    assert rows == ["LFK", "L-K"] and (chain.name, chain.sequence) == ("1a3a_A", "LFK")


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """Three listed chains, made up: one of 3 residues, one that is torn, and one that is too short."""
    contents = {
        "1ail.pdb": stretch("B", ["TRP"] * 3) + stretch("A", ["ALA", "SER", "GLY"]),
        "1bgf.pdb": stretch("A", ["ALA"]) + stretch("A", ["ALA"] * 2, 3),
        "1cd0.pdb": stretch("A", ["ALA"] * 2),
    }
    for file in contents:
        row = {"name": file, "chain": "A", "length": "3"}
        monkeypatch.setitem(proteins.BACKBONES, file.removesuffix(".pdb"), row)
    encoded = {file: text.encode() for file, text in contents.items()}
    make_up(monkeypatch, tmp_path, "protein_backbones", encoded)


def test_backbones_are_fetched_as_they_are_asked_for(listed):
    (chain,) = backbones(["1ail"])
    assert isinstance(chain, Chain) and (chain.name, chain.sequence) == ("1ail_A", "ASG")
    assert backbones([]) == []


def test_all_backbones_unless_some_are_named(listed, monkeypatch):
    monkeypatch.setattr(proteins, "BACKBONES", {"1ail": proteins.BACKBONES["1ail"]})
    assert [chain.name for chain in backbones()] == ["1ail_A"]


def test_every_listed_chain_is_one_of_the_registry_s_files():
    listed = proteins.BACKBONES
    assert [row["name"] for row in listed.values()] == list(DATASETS["protein_backbones"].files)
    lengths = [int(row["length"]) for row in listed.values()]
    assert (len(lengths), sum(lengths), min(lengths), max(lengths)) == (606, 57_261, 40, 128)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: protein("1ubq"), "no protein '1ubq'; there are 1crn, 1ubi, 1l2y, 1aki, 5L33, 6MRR$"),
        (lambda: backbones(["1crn"]), "no backbone '1crn'; BACKBONES lists the 606 there are"),
        (lambda: backbones(["1bgf"]), r"1bgf\.pdb must give 3 residues without a gap, got 3, torn at \[1\]"),
        (lambda: backbones(["1cd0"]), r"1cd0\.pdb must give 3 residues without a gap, got 2, torn at \[\]"),
    ],
)
def test_bad_input_says_what_was_wrong(listed, call, match):
    with pytest.raises(ValueError, match=match):
        call()


@pytest.mark.bad_input
def test_a_file_without_the_chain(read):
    with pytest.raises(ValueError, match=r"1abc\.pdb has no chain Z"):
        read(stretch("A", ["ALA"]), "Z")
    with pytest.raises(ValueError, match=r"1abc\.pdb has no chain of amino acids"):
        read(atom("O", "HOH", "A", 1, (0, 0, 0), kind="HETATM"))


@pytest.mark.slow
def test_the_real_proteins():
    require(bool(os.environ.get("TRANSFORMER_LAB_DATA")), "TRANSFORMER_LAB_DATA names no mirror of the data")
    lengths = {"1crn": 46, "1ubi": 76, "1l2y": 20, "1aki": 129, "5L33": 106, "6MRR": 68}
    for name, length in lengths.items():
        chain = protein(name)
        assert len(chain.sequence) == length and gaps(chain) == [] and chain.name == f"{name}_A"
        without = chain.atoms.isnan().any(-1)
        assert without[:, 4].tolist() == [letter == "G" for letter in chain.sequence]
        assert not without[:, :4].any()
        steps = chain.atoms[:, 1].diff(dim=0).norm(dim=-1)
        assert 3.7 < steps.median() < 3.9
        bond = (chain.atoms[:, 1] - chain.atoms[:, 0]).norm(dim=-1)
        assert ((bond > 1.4) & (bond < 1.55)).all()  # N to CA, in ångström
    chain, rows = proteins.alignment_1a3a()
    assert rows[0] == chain.sequence and (len(rows), {len(row) for row in rows}) == (1024, {145})


@pytest.mark.slow
def test_the_backbones_are_those_of_an_array_that_other_code_made_of_the_same_files():
    """It lies in the authors' mirror and has no public address; of its chains, 5L33 is here as a file."""
    path = Path(os.environ.get("TRANSFORMER_LAB_DATA", ""), "protein_backbones", "backbones_40_128.npz")
    require(path.exists(), "TRANSFORMER_LAB_DATA names no mirror with backbones_40_128.npz")
    with np.load(path, allow_pickle=False) as stored:
        ids, offsets, coordinates = stored["ids"].tolist(), stored["offsets"], stored["coords"]
        sequences = stored["seqs"].tolist()
    assert tuple(ATOMS) == ("N", "CA", "C", "O", "CB") and coordinates.shape[1:] == (5, 3)
    assert ids == [f"{name}_{row['chain']}" for name, row in proteins.BACKBONES.items()]
    for i, row in enumerate(proteins.BACKBONES.values()):
        atoms = torch.from_numpy(coordinates[offsets[i] : offsets[i + 1]])
        assert len(atoms) == len(sequences[i]) == int(row["length"])
        assert gaps(Chain(ids[i], sequences[i], atoms)) == [] and not atoms[:, :4].isnan().any()
    chain, i = protein("5L33"), ids.index("5l33_A")
    assert chain.sequence == sequences[i]
    stored = torch.from_numpy(coordinates[offsets[i] : offsets[i + 1]])
    assert torch.equal(chain.atoms.nan_to_num(), stored.nan_to_num())
    assert torch.equal(chain.atoms.isnan(), stored.isnan())
