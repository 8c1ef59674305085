"""What the address of a store may say, and that nothing else is taken for one."""

from pathlib import Path

import pytest

from trainers.address import at, checked
from trainers.bucket import Bucket
from trainers.call import Invalid
from trainers.folder import Folder


@pytest.mark.parametrize(
    ("written", "root", "file"),
    [
        ("s3://bucket", "s3://bucket", "s3://bucket/k/result.json"),
        ("s3://bucket/", "s3://bucket", "s3://bucket/k/result.json"),
        ("s3://my.bucket/a/b/", "s3://my.bucket/a/b", "s3://my.bucket/a/b/k/result.json"),
    ],
)
def test_a_bucket_with_or_without_a_prefix_is_a_place(written: str, root: str, file: str) -> None:
    place = at(checked(written))
    assert isinstance(place, Bucket)
    assert (place.root, place.address, place.file("k/result.json")) == (root, root, file)


@pytest.mark.parametrize("written", ["store", "/shared/store", "~/store", "a:b", Path("/shared/s3")])
def test_whatever_has_no_scheme_is_a_folder(written: str | Path) -> None:
    assert checked(str(written)) == str(written)
    assert isinstance(at(written), Folder) and at(written).root == Path(written).expanduser()


def test_a_folder_has_the_same_address_wherever_one_looks_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert at("store").address == str(tmp_path / "store")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("ftp://host/store", r"nothing is stored at ftp:// addresses: write a folder, .* or a bucket, as in s3://"),
        ("gs://bucket/store", r"nothing is stored at gs://"),
        ("file:///shared/store", r"nothing is stored at file://"),
        ("s3://", r"s3:// is followed by the name of a bucket"),
        ("s3:///store", r"s3:// is followed by the name of a bucket"),
        ("s3:/bucket/store", r"s3:// is followed by the name of a bucket"),
        ("S3://bucket", r"s3:// is followed by the name of a bucket"),
        ("s3://bucket/store?versionId=secret", r"s3:// is followed by the name of a bucket"),
        ("s3://bucket/my secret", r"there is a blank in it"),
        ("s3://key:secret@bucket/store", r"credentials do not go into the address: set AWS_ACCESS_KEY_ID"),
        ("s3://bucket/a/../b", r"a prefix has no \. or \.\."),
    ],
)
def test_an_address_that_leads_nowhere_is_refused_and_what_may_be_secret_is_not_repeated(
    written: str, message: str
) -> None:
    with pytest.raises(Invalid, match=message) as refused:
        checked(written)
    assert "secret" not in str(refused.value)
