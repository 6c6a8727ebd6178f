from __future__ import annotations

import json
import logging
import struct
import zipfile
from itertools import count, islice
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_lm.common import UserError
from diffusion_lm.text import corpus as corpus_module
from diffusion_lm.text.corpus import Corpus, CorpusConfig, Source, Unreadable, open_corpus, parse_meaning, readable
from diffusion_lm.text.fields import Document

ROW = '"name[Aromi], eatType[pub], priceRange[cheap], familyFriendly[no]","Aromi is a  cheap pub."\n'


def write_e2e(folder: Path, train: str = ROW, dev: str = ROW, test: str | None = ROW) -> Path:
    folder.mkdir(exist_ok=True)
    for name, rows in (("trainset", train), ("devset", dev), ("testset_w_refs", test)):
        if rows is not None:
            (folder / f"{name}.csv").write_text("mr,ref\n" + rows, encoding="utf-8")
    return folder


def open_source(source: object, **options: Any) -> Corpus:
    return open_corpus(CorpusConfig(str(source), **options))


def texts(corpus: Corpus, split: str) -> list[str]:
    return [document.text for document in corpus.documents(split)]


# Documents


def test_documents_are_values() -> None:
    one, other = Document("A pub.", {"Type": "pub"}), Document("A pub.", {"Type": "pub"})
    assert one == other and hash(one) == hash(other)
    assert one != Document("A pub.", {"Type": "bar"})
    with pytest.raises(AttributeError):
        one.text = "A bar."  # type: ignore[misc]


# E2E


def test_meaning_representation_gets_canonical_names() -> None:
    meaning = "name[The Rice Boat],eatType[pub] , priceRange[£20-25], customer rating[5 out of 5], near[Café, Rome]"
    assert parse_meaning(meaning) == {
        "name": "The Rice Boat",
        "Type": "pub",
        "price": "£20-25",
        "customer rating": "5 out of 5",
        "near": "Café, Rome",
    }


@pytest.mark.parametrize(
    "meaning",
    ["Aromi", "name[Aromi", "name[Aromi]] ", "name[]", "[Aromi]", "name[A] area[B]", "name[A], name[B]", "a[b],"],
)
def test_malformed_meaning_representations_are_refused(meaning: str) -> None:
    with pytest.raises(ValueError):
        parse_meaning(meaning)


def test_long_lists_are_refused_in_linear_time() -> None:
    start = perf_counter()
    for meaning in (", ".join(f"f{i} [v]" for i in range(2000)) + "x", "a " * 20_000, "," * 20_000):
        with pytest.raises(Unreadable):
            parse_meaning(meaning)
    assert perf_counter() - start < 2


WORDS = st.lists(st.text("abcé£ -,'", min_size=1).filter(str.strip), min_size=1, max_size=6)


@given(names=st.lists(st.sampled_from(["name", "area", "near", "food"]), min_size=1, unique=True), values=WORDS)
def test_meaning_representations_are_read_back(names: list[str], values: list[str]) -> None:
    expected = {name: " ".join(value.split()) for name, value in zip(names, values, strict=False)}
    assert parse_meaning(", ".join(f"{name}[{value}]" for name, value in expected.items())) == expected


def test_e2e_reads_fields_and_tidies_white_space(tmp_path: Path) -> None:
    corpus = open_source(write_e2e(tmp_path, train='"name[Aromi]"," Aromi\tis\n a pub. "\n' + ROW))
    first, second = corpus.documents("train")
    assert first == Document("Aromi is a pub.", {"name": "Aromi"})
    assert second.fields == {"name": "Aromi", "Type": "pub", "price": "cheap", "family friendly": "no"}
    assert second.text == "Aromi is a cheap pub."
    assert corpus.unreadable == {"train": 0}


def test_training_texts_can_have_the_fields_that_they_say(tmp_path: Path) -> None:
    folder = write_e2e(tmp_path)
    given, said = (open_source(folder, fields=fields) for fields in ("given", "said"))
    (train,), (dev,) = said.documents("train"), said.documents("dev")
    assert train == Document("Aromi is a cheap pub.", {"name": "Aromi", "Type": "pub", "price": "cheap"})
    assert dev.fields["family friendly"] == "no" and [dev] == list(given.documents("dev"))
    assert said.fingerprint("train") != given.fingerprint("train")
    assert said.fingerprint("dev") == given.fingerprint("dev")


def test_training_texts_can_come_again_with_the_names_of_other_places(tmp_path: Path) -> None:
    places = [("Aromi", "The Bakers"), ("The Mill", "Ranch"), ("Zizzi", "Clare Hall")]
    rows = [f'"name[{name}], near[{near}]","{name} is by {near}, and {name} is cheap."\n' for name, near in places]
    nameless = '"name[Cotto], food[Thai]","A place with Thai food."\n'
    folder = write_e2e(tmp_path, train="".join(rows) + nameless)
    said = list(open_source(folder, fields="said").documents("train"))
    found = list(open_source(folder, fields="exchanged").documents("train"))
    assert found == list(open_source(folder, fields="exchanged").documents("train"))
    assert [*found[0:6:2], found[6]] == said and len(found) == 7  # where no name is said, none can be exchanged
    assert any(other.text != own.text for own, other in zip(found[0:6:2], found[1:6:2], strict=True))
    for own, other in zip(found[0:6:2], found[1:6:2], strict=True):
        name, near = other.fields["name"], other.fields["near"]
        assert name in [each for each, _ in places] and near in [each for _, each in places]
        assert other == Document(
            f"{name} is by {near}, and {name} is cheap.", {**own.fields, "name": name, "near": near}
        )


def test_unreadable_rows_are_counted_and_the_first_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        ROW,
        '"name[Aromi]"," "\n',
        '"name Aromi","Aromi is here."\n',
        '"","Aromi is here."\n',
        "name[Aromi],Aromi is here, by the park.\n",
        "name[Aromi]\n",
        '"name[Aromi]","Aromi" is here."\n',
        ROW,
    ]
    folder = write_e2e(tmp_path, train="".join(rows))
    with (folder / "trainset.csv").open("ab") as file:
        file.write(b"name[Aromi],Caf\xe9 Aromi\n")
    corpus = open_source(folder)
    with caplog.at_level(logging.WARNING):
        assert len(list(corpus.documents("train"))) == 2
        assert len(list(corpus.documents("train"))) == 2
    assert corpus.unreadable == {"train": 7}
    assert len(caplog.messages) == 1
    assert "7 of the 9 rows" in caplog.text and "line 3" in caplog.text


def test_an_unclosed_quote_does_not_swallow_the_rest_of_the_file(tmp_path: Path) -> None:
    corpus = open_source(write_e2e(tmp_path, train=ROW + '"name[Aromi]","Aromi is open\n' + ROW * 5))
    assert len(texts(corpus, "train")) == 5  # the row itself and the one whose quote closed it are lost
    assert corpus.unreadable["train"] == 1


def test_e2e_with_marks_that_editors_add(tmp_path: Path) -> None:
    folder = write_e2e(tmp_path)
    for name in ("trainset.csv", "devset.csv"):
        (folder / name).write_bytes(("\ufeff" + '"ref","mr"\r\n"A pub.","name[A]"\r\n\r\n').encode())
    (document,) = open_source(folder).documents("train")
    assert document == Document("A pub.", {"name": "A"})


def test_e2e_without_test_references_has_two_splits(tmp_path: Path) -> None:
    corpus = open_source(write_e2e(tmp_path, test=None))
    assert corpus.splits == ("train", "dev")
    with pytest.raises(UserError, match="has no split 'test'; it has train, dev"):
        corpus.documents("test")


@pytest.mark.parametrize("header", ["", "meaning,text\n", "mr\n", 'mr,"ref\n'])
def test_e2e_needs_its_columns(tmp_path: Path, header: str) -> None:
    write_e2e(tmp_path)
    (tmp_path / "devset.csv").write_text(header + ROW if header else "")
    with pytest.raises(UserError, match=r"devset.csv needs the columns 'mr' and 'ref'"):
        open_source(tmp_path)


def test_e2e_needs_its_development_file(tmp_path: Path) -> None:
    (write_e2e(tmp_path) / "devset.csv").unlink()
    with pytest.raises(UserError, match=r"has no devset\.csv"):
        open_source(tmp_path)


def test_a_split_without_any_readable_row_is_refused(tmp_path: Path) -> None:
    corpus = open_source(write_e2e(tmp_path, train='"x",""\n', test=""))
    with pytest.raises(UserError, match=r"train split .* no readable document .*line 2: the reference is empty"):
        texts(corpus, "train")
    with pytest.raises(UserError, match=r"test split .* no readable document"):
        texts(corpus, "test")


@pytest.mark.parametrize(("split", "rows"), [("train", 42061), ("dev", 4672), ("test", 4693)])
def test_the_real_e2e_corpus_is_read_whole(shared_data: Path, split: str, rows: int) -> None:
    corpus = open_source(shared_data / "e2e")
    documents = list(corpus.documents(split))
    assert len(documents) == rows and corpus.unreadable[split] == 0
    known = {"name", "Type", "area", "customer rating", "near", "family friendly", "food", "price"}
    assert set().union(*(document.fields for document in documents)) == known
    assert all(document.text == " ".join(document.text.split()) for document in documents)


# Zip archives


def zipped(folder: Path, path: Path, inside: str = "e2e-dataset/") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, inside + file.name)
            archive.writestr(f"__MACOSX/{inside}{file.name}", b"\0\5\26\7")
    return path


def test_a_zip_reads_like_its_folder(tmp_path: Path) -> None:
    folder = write_e2e(tmp_path / "data", train=ROW * 3)
    archive = zipped(folder, tmp_path / "e2e.zip")
    opened, plain = open_source(archive), open_source(folder)
    for split in ("train", "dev", "test"):
        assert list(opened.documents(split)) == list(plain.documents(split))
        assert opened.fingerprint(split) == plain.fingerprint(split)


def test_a_zip_of_plain_text(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.txt").write_text("One.\nTwo.\n")
    (tmp_path / "data" / "valid.txt").write_text("Three.\n")
    corpus = open_source(zipped(tmp_path / "data", tmp_path / "text.zip", inside=""))
    assert texts(corpus, "train") == ["One.", "Two."] and texts(corpus, "dev") == ["Three."]


def test_a_truncated_zip_is_refused(tmp_path: Path) -> None:
    archive = zipped(write_e2e(tmp_path / "data"), tmp_path / "e2e.zip")
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(UserError, match="not a complete zip archive"):
        open_source(archive)


def test_a_zip_with_a_damaged_member_is_refused(tmp_path: Path) -> None:
    rows = "".join(f'"name[N{i}]","Place {i * 7919} is here."\n' for i in range(3000))
    archive = zipped(write_e2e(tmp_path / "data", train=rows), tmp_path / "e2e.zip")
    with zipfile.ZipFile(archive) as opened:
        info = opened.getinfo("e2e-dataset/trainset.csv")
    content = bytearray(archive.read_bytes())
    middle = info.header_offset + info.compress_size // 2
    content[middle : middle + 200] = bytes(200)
    archive.write_bytes(content)
    with pytest.raises(UserError, match=r"trainset.csv is damaged"):
        texts(open_source(archive), "train")


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    archive = zipped(write_e2e(tmp_path / "data"), tmp_path / "e2e.zip")
    content = bytearray(archive.read_bytes())
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = content.find(magic)
        while start >= 0:
            (flags,) = struct.unpack_from("<H", content, start + offset)
            struct.pack_into("<H", content, start + offset, flags | 1)
            start = content.find(magic, start + 4)
    archive.write_bytes(content)
    with pytest.raises(UserError, match="encrypted"):
        open_source(archive)


# Plain text


def test_a_folder_of_plain_text(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("One  story.\n\n \nTwo\tstories.\n")
    (tmp_path / "valid.txt").write_text("Three stories.")
    corpus = open_source(tmp_path)
    assert corpus.splits == ("train", "dev")
    assert list(corpus.documents("train")) == [Document("One story."), Document("Two stories.")]
    assert texts(corpus, "dev") == ["Three stories."]
    assert corpus.unreadable == {"train": 0, "dev": 0}


def test_stories_are_taken_in_threes_of_their_sentences(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("A a. B b. C c. D d.\nOne. Two.\n")
    corpus = open_source(tmp_path / "train.txt", threes=True)
    assert texts(corpus, "train") == ["A a. B b. C c.", "A a. B b. D d.", "B b. C c. D d.", "A a. C c. D d."]
    assert corpus.fingerprint("train") != open_source(tmp_path / "train.txt").fingerprint("train")
    (tmp_path / "train.txt").write_text("One. Two.\n")
    with pytest.raises(UserError, match="has no document of three sentences"):
        texts(open_source(tmp_path / "train.txt", threes=True), "train")


def test_a_single_file_is_divided_by_its_texts(tmp_path: Path) -> None:
    lines = [f"Story number {i}." for i in range(3000)]
    file, shuffled = tmp_path / "stories.txt", tmp_path / "shuffled.txt"
    file.write_text("\n".join(lines))
    shuffled.write_text("\n".join(reversed(lines)))
    corpus = open_source(file)
    parts = {split: texts(corpus, split) for split in ("train", "dev", "test")}
    assert sorted(text for part in parts.values() for text in part) == sorted(lines)
    assert 40 <= len(parts["dev"]) <= 80 and 40 <= len(parts["test"]) <= 80
    assert set(texts(open_source(shuffled), "dev")) == set(parts["dev"])


@given(st.text().filter(lambda text: text.isprintable()))
def test_held_out_texts_stay_in_their_split(text: str) -> None:
    source = Source(list, str)
    both, dev, none = (
        Corpus("some", dict.fromkeys(splits, source)) for splits in (["train"], ["train", "test"], ["train", "dev"])
    )
    assert both.held_out == ("dev", "test") and dev.held_out == ("dev",)
    assert (both.home(text) == "dev") == (dev.home(text) == "dev")
    assert none.home(text) == "train"


def test_lines_that_are_not_utf8_are_counted(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_bytes("One.\nCafé.\n".encode() + "Café.\n".encode("latin-1"))
    (tmp_path / "valid.txt").write_text("Two.\n")
    corpus = open_source(tmp_path)
    assert texts(corpus, "train") == ["One.", "Café."]
    assert corpus.unreadable == {"train": 1}


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0", "One.\n".encode("utf-16")])
def test_a_binary_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "stories.txt").write_bytes(content)
    with pytest.raises(UserError, match="no readable document"):
        texts(open_source(tmp_path / "stories.txt"), "train")


def test_the_real_stories_are_read_whole(shared_data: Path) -> None:
    corpus = open_source(shared_data / "roc")
    lines = [
        len((shared_data / "roc" / name).read_text(encoding="utf8").splitlines()) for name in ("train.txt", "valid.txt")
    ]
    assert [len(texts(corpus, split)) for split in corpus.splits] == lines
    assert corpus.unreadable == {"train": 0, "dev": 0}


# Datasets


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_a_saved_dataset(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    train = datasets.Dataset.from_dict({"story": ["One  story.", None, "", "Two."], "n": [1, 2, 3, 4]})
    valid = datasets.Dataset.from_dict({"story": ["Three."], "n": [5]})
    datasets.DatasetDict(train=train, validation=valid).save_to_disk(tmp_path / "saved")
    corpus = open_source(f"hf:{tmp_path / 'saved'}", text_column="story")
    assert corpus.splits == ("train", "dev")
    assert texts(corpus, "train") == ["One story.", "Two."] and texts(corpus, "dev") == ["Three."]
    assert corpus.unreadable == {"train": 2, "dev": 0}
    again = open_source(f"hf:{tmp_path / 'saved'}", text_column="story")
    assert corpus.fingerprint("train") == again.fingerprint("train") != corpus.fingerprint("dev")
    with pytest.raises(UserError, match="no column 'text'; set text_column to one of 'story', 'n'"):
        open_source(f"hf:{tmp_path / 'saved'}")


@pytest.mark.usefixtures("no_cache")
def test_a_json_file_is_divided_like_plain_text(tmp_path: Path) -> None:
    lines = [f"Story number {i}." for i in range(300)]
    (tmp_path / "stories.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    (tmp_path / "stories.txt").write_text("\n".join(lines))
    from_json, plain = open_source(f"hf:{tmp_path / 'stories.jsonl'}"), open_source(tmp_path / "stories.txt")
    for split in ("train", "dev", "test"):
        assert texts(from_json, split) == texts(plain, split)


@pytest.mark.usefixtures("no_cache")
@pytest.mark.parametrize("content", ["{", "\0\1\2"])
def test_a_broken_json_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "stories.json").write_text(content)
    with pytest.raises(UserError, match="cannot be loaded"):
        open_source(f"hf:{tmp_path / 'stories.json'}")


@pytest.mark.parametrize("name", ["", "no/such/folder", "nobody/nothing", "/no/such/file.json"])
def test_a_dataset_that_cannot_be_had_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="cannot be loaded"):
        open_source(f"hf:{name}")


def test_a_dataset_needs_a_training_split(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    one = datasets.Dataset.from_dict({"text": ["One."]})
    datasets.DatasetDict(validation=one).save_to_disk(tmp_path / "saved")
    with pytest.raises(UserError, match="needs a split 'train'; it has 'validation'"):
        open_source(f"hf:{tmp_path / 'saved'}")


# Every corpus


@pytest.mark.parametrize("source", ["", "no_such_folder", "toys", "e2e.zip"])
def test_a_missing_source_is_refused(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="does not exist; give 'toy'"):
        open_source(source)


def test_a_source_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither E2E's .* nor train\.txt"):
        open_source(tmp_path)
    (tmp_path / "data.csv").write_text("text\nOne.\n")
    with pytest.raises(UserError, match=r"write 'hf:.*data\.csv'"):
        open_source(tmp_path / "data.csv")
    (tmp_path / "e2e.zip").write_bytes(b"")
    with pytest.raises(UserError, match="not a complete zip archive"):
        open_source(tmp_path / "e2e.zip")


def test_messages_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        open_source(tmp_path / "missing")
    assert str(error.value).count("\n") == 0 and str(error.value).endswith(".")


@pytest.mark.parametrize("split", ["valid", "validation", "Train", ""])
def test_a_split_has_one_name(split: str) -> None:
    corpus = open_source("toy")
    for ask in (corpus.documents, corpus.fingerprint):
        with pytest.raises(UserError, match="has no split"):
            ask(split)


def test_fingerprints_follow_the_content(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One.\n")
    (tmp_path / "b.txt").write_text("One.\n")
    (tmp_path / "c.txt").write_text("Two.\n")
    a, b, c = (open_source(tmp_path / f"{name}.txt") for name in "abc")
    assert a.fingerprint("train") == b.fingerprint("train") != c.fingerprint("train")
    assert a.fingerprint("train") != a.fingerprint("dev")


def test_documents_are_streamed() -> None:
    numbers = count(1)
    endless = Source(lambda: ((n, Document(f"Sentence {n}.")) for n in numbers), str)
    corpus = Corpus("endless", {"train": endless, "dev": endless})
    assert len(list(islice(corpus.documents("train"), 10))) == 10
    assert next(numbers) == 11
    assert corpus.unreadable == {}  # not known before the end


# What is written in another form


@pytest.mark.parametrize(
    ("written", "read"),
    [("Cafe\u0301 Rouge", "Café Rouge"), ("It’s “open”", 'It\'s "open"'), ("a\u00a0b\u2009 \u3000c", "a b c")],
)
def test_documents_are_in_the_normal_form(tmp_path: Path, written: str, read: str) -> None:
    (tmp_path / "train.txt").write_text(f"{written}\n", encoding="utf-8")
    (tmp_path / "valid.txt").write_text("Two.\n")
    assert texts(open_source(tmp_path), "train") == [read]
    e2e = write_e2e(tmp_path / "e2e", train=f"name[{written}],{written}\n".replace('"', ""))
    assert list(open_source(e2e).documents("train")) == [
        Document(readable(written.replace('"', "")), {"name": readable(written.replace('"', ""))})
    ]


def test_lines_that_are_too_long_or_have_nul_bytes_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(corpus_module, "LONGEST", 1000)
    (tmp_path / "train.txt").write_bytes(b"One.\n" + b"a " * 3000 + b"\nTw\0o.\nThree.\n" + b"b" * 2500)
    (tmp_path / "valid.txt").write_text("Two.\n")
    corpus = open_source(tmp_path)
    assert texts(corpus, "train") == ["One.", "Three."]
    assert corpus.unreadable["train"] == 3
    assert "line 2: the text is longer than 1,000 characters" in caplog.text


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("\ud800", "UTF-8"),
        ("a\0b", "x00"),
        ("a\x1bb", "x1b"),
        (3, "int"),
        (" \u00a0", "empty"),
        ("a" * 1_000_001, "longer than 1,000,000 characters"),
    ],
)
def test_what_is_no_text_is_unreadable(raw: object, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        readable(raw)
    corpus = Corpus("one", {"train": Source(lambda: [(1, Document(raw)), (2, Document("A."))], str), "dev": None})  # type: ignore[arg-type,dict-item]
    assert texts(corpus, "train") == ["A."] and corpus.unreadable == {"train": 1}


# Documents left out


def test_leaves_out_just_those_sentences_of_train(tmp_path: Path) -> None:
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.txt").write_text("It's a pub.\nThe pub , open.\nA pub is open.\n", encoding="utf-8")
    whole = open_source(tmp_path)
    part = whole.without([("It", "’s", "a", "pub", "."), ("The", "pub", ",", "open", ".")])
    assert texts(part, "train") == ["A pub is open."] and len(texts(part, "dev")) == 3
    # Encoded forms are cached by fingerprint.
    assert part.fingerprint("train") != whole.fingerprint("train") == whole.without([]).fingerprint("train")
    assert part.fingerprint("dev") == whole.fingerprint("dev")
