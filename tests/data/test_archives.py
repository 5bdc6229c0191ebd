"""Members of archives; and archives that try to lead astray."""

import io
import tarfile
import zipfile

import pytest

from transformer_lab.data.archives import members


def tarred(path, *entries):
    with tarfile.open(path, "w:gz") as archive:
        for name, content, kind in entries:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, content.decode()
            if kind == tarfile.REGTYPE:
                member.size, member.linkname = len(content), ""
            archive.addfile(member, io.BytesIO(content))
    return path


def zipped(path, *entries):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content, _ in entries:
            archive.writestr(name, content)
    return path


FILE = tarfile.REGTYPE
ASTRAY = [("../outside", b"x", FILE), ("/outside", b"x", FILE), ("a/../../outside", b"x", FILE)]


@pytest.mark.parametrize(("pack", "ending"), [(tarred, "tar.gz"), (zipped, "zip")])
def test_only_what_is_wanted_is_read_and_nothing_is_written(tmp_path, pack, ending):
    (tmp_path / "here").mkdir()
    path = pack(
        tmp_path / "here" / f"packed.{ending}", *ASTRAY, ("a/one", b"1", FILE), ("a/two", b"22", FILE)
    )
    before = sorted(tmp_path.rglob("*"))
    assert list(members(path, ["a/two", "a/one"])) == [("a/one", b"1"), ("a/two", b"22")]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.bad_input
@pytest.mark.parametrize(("pack", "ending"), [(tarred, "tar.gz"), (zipped, "zip")])
def test_a_missing_member_is_said(tmp_path, pack, ending):
    path = pack(tmp_path / f"packed.{ending}", ("a/one", b"1", FILE))
    with pytest.raises(ValueError, match=rf"packed\.{ending} holds no plain file a/two"):
        list(members(path, ["a/one", "a/two"]))


@pytest.mark.bad_input
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_a_link_or_a_device_in_a_file_s_place_is_refused(tmp_path, kind):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    path = tarred(tmp_path / "packed.tar.gz", ("a/one", str(secret).encode(), kind))
    with pytest.raises(ValueError, match="holds no plain file a/one"):
        list(members(path, ["a/one"]))


@pytest.mark.bad_input
def test_a_link_in_a_zip_is_refused(tmp_path):
    link = zipfile.ZipInfo("a/one")
    link.create_system, link.external_attr = 3, 0o120777 << 16  # as Unix packs it
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ValueError, match="holds no plain file a/one"):
        list(members(tmp_path / "packed.zip", ["a/one"]))
