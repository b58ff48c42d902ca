"""A text of one's own: every file is read or named, and tokenized only once."""

import glob
import gzip
import json
import mmap
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from normlab.data import build_source, sources
from normlab.data import text as user_text
from normlab.data.tokenizers import CharacterTokenizer, tokenizer_from_json
from normlab.errors import ConfigError, NormlabError
from tiny_run import TINY

VERSE = "Über allen Gipfeln ist Ruh, 静夜思 🌙\n"
SRC = Path(user_text.__file__).parents[2]


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    (folder / "deep").mkdir(parents=True)
    (folder / "b.txt").write_text(VERSE * 30, encoding="utf-8")
    (folder / "a.txt").write_text("first " * 50, encoding="utf-8")
    (folder / "deep" / "c.md").write_text("last\r\n" * 40, encoding="utf-8", newline="")
    (folder / "empty.txt").touch()
    (folder / ".hidden").write_bytes(b"\0\xff")
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_bytes(b"\0\xff")
    return folder


def whole(source):
    return source.tokenizer.decode(np.concatenate([source._train, source._held_out]))


def open_text(path, context=8, **options):
    return build_source({"kind": "text", "path": str(path), **options}, context)


@pytest.mark.parametrize("tokens", ["characters", "bpe"])
@pytest.mark.parametrize("chunk", [2**22, 5])
def test_a_folder_is_all_its_files_in_order(corpus, tokens, chunk, monkeypatch):
    monkeypatch.setattr(user_text, "CHUNK_BYTES", chunk)
    source = open_text(corpus, tokens=tokens, vocabulary=300)
    expected = "first " * 50 + VERSE * 30 + "last\r\n" * 40
    assert whole(source) == expected
    if tokens == "characters":
        assert source.vocabulary == len(set(expected))
        assert source.tokenizer.decode(range(source.vocabulary)) == "".join(sorted(set(expected)))


def test_a_file_and_a_glob(corpus, monkeypatch):
    assert whole(open_text(corpus / "b.txt")) == VERSE * 30
    assert whole(open_text(corpus / "*.txt")) == "first " * 50 + VERSE * 30
    everything = whole(open_text(corpus / "**" / "*.*"))
    assert everything == whole(open_text(corpus))
    monkeypatch.chdir(corpus)
    assert whole(open_text("deep/?.md")) == "last\r\n" * 40
    monkeypatch.setenv("HOME", str(corpus.parent))
    assert whole(open_text("~/corpus/a.txt")) == "first " * 50


def test_a_name_that_looks_like_a_glob_is_a_file(tmp_path):
    (tmp_path / "[a].txt").write_text("odd name " * 20)
    assert whole(open_text(tmp_path / "[a].txt")) == "odd name " * 20


def test_a_byte_order_mark_is_not_text(tmp_path):
    (tmp_path / "a.txt").write_text("from Windows " * 20, encoding="utf-8-sig")
    (tmp_path / "b.txt").write_text("", encoding="utf-8-sig")
    for tokens in ("characters", "bpe"):
        assert whole(open_text(tmp_path, context=2, tokens=tokens)) == "from Windows " * 20


def is_mapped(array):
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array, mmap.mmap)


@pytest.mark.parametrize(("distinct", "dtype"), [(300, np.uint16), (70_000, np.uint32)])
def test_ids_are_mapped_from_a_file_of_the_smallest_type(tmp_path, distinct, dtype):
    # From U+10000 on there are no surrogates in the way.
    characters = "".join(chr(0x10000 + i) for i in range(distinct))
    (tmp_path / "a.txt").write_text(characters * 2, encoding="utf-8")
    source = open_text(tmp_path)
    assert source._train.dtype == dtype
    assert is_mapped(source._train)
    assert source.vocabulary == distinct
    assert source.floor is None
    assert whole(source) == characters * 2


@pytest.mark.parametrize("tokens", ["characters", "bpe"])
def test_the_same_corpus_is_read_only_once(corpus, tokens, monkeypatch):
    first = open_text(corpus, tokens=tokens)
    monkeypatch.setattr(user_text, "read_text_chunks", lambda _: pytest.fail("read again"))
    again = open_text(corpus, tokens=tokens, batch_size=2, validation_fraction=0.3)
    assert again.tokenizer.to_json() == first.tokenizer.to_json()
    assert whole(again) == whole(first)


def test_a_text_replaced_under_its_size_and_time_is_read_again(tmp_path):
    text = tmp_path / "a.txt"
    text.write_text("to be or not to be " * 20)
    times = text.stat().st_mtime_ns
    open_text(text)
    text.write_text("eb ot ton ro eb ot " * 20)
    os.utime(text, ns=(times, times))
    assert whole(open_text(text)) == "eb ot ton ro eb ot " * 20


def test_a_text_under_another_name_is_not_tokenized_again(corpus, tmp_path, monkeypatch):
    text = whole(open_text(corpus))
    corpus.rename(tmp_path / "moved")
    monkeypatch.setattr(user_text, "read_text_chunks", lambda _: pytest.fail("read again"))
    assert whole(open_text(tmp_path / "moved")) == text


LINKED = {
    "a folder": "corpus",
    "a glob": "corpus/**/*.txt",
    "a glob through the link": "corpus/linked/*.txt",
    "a link": "also",
}


@pytest.mark.parametrize("path", LINKED.values(), ids=LINKED)
def test_links_are_followed_however_the_path_is_given(tmp_path, path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.txt").write_text("far away " * 20)
    (tmp_path / "corpus" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "also").symlink_to("corpus")
    assert whole(open_text(tmp_path / path)) == "far away " * 20


@pytest.mark.parametrize("path", ["", "**/*.txt", "**", "*/**/*.txt", "**/**/*.txt"])
def test_links_that_lead_back_end_and_no_text_is_taken_twice(tmp_path, path):
    (tmp_path / "deep").mkdir()
    for name in "bc":  # two: a search that follows them to the bottom takes 2⁴⁰ steps
        (tmp_path / "deep" / name).symlink_to(tmp_path)
    (tmp_path / "deep" / "a.txt").write_text("once " * 20)
    (tmp_path / "deep" / "d.txt").symlink_to("a.txt")
    assert whole(open_text(tmp_path / path)) == "once " * 20


def test_a_link_that_leads_nowhere_is_named(tmp_path):
    (tmp_path / "a.txt").write_text("there " * 20)
    (tmp_path / "b.txt").symlink_to("gone.txt")
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path, tmp_path / "*.txt", tmp_path / "b.txt", tmp_path / "loop"):
        with pytest.raises(NormlabError, match=r"(b\.txt|loop) is a broken link"):
            open_text(path)


GLOBS = (
    *("corpus/*", "corpus/*/*", "**/*.txt", "*/[ab].*", "corpus/*/../?.txt", "c*/**", "**/er/*"),
    *("corpus/.git/*.txt", "corpus/.*", "corpus/.*/a*", "corpus/**/[[]*"),
)


def test_a_glob_takes_what_the_standard_library_does(corpus, monkeypatch):
    (corpus / "deep" / "er").mkdir()
    (corpus / "deep" / "er" / "[x].txt").write_text("odd")
    (corpus / ".git" / "a.txt").write_text("hidden")
    monkeypatch.chdir(corpus.parent)
    for pattern in GLOBS:
        expected = {Path(name) for name in glob.glob(pattern, recursive=True)}
        files_only = {path.resolve() for path in expected if path.is_file()}
        assert {path.resolve() for path in user_text.find_corpus_files(pattern)} == files_only, (
            pattern
        )


def test_a_changed_corpus_or_option_is_tokenized_again(corpus, cache):
    open_text(corpus)
    open_text(corpus, tokens="bpe", vocabulary=300)
    assert open_text(corpus, tokens="bpe", vocabulary=280).vocabulary == 280
    (corpus / "a.txt").write_text("other " * 50)
    assert whole(open_text(corpus)).startswith("other ")
    kept = sorted(file.suffix for file in (cache / "corpora").iterdir())
    assert kept == [".ids"] * 4 + [".json"] * 4


def _cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def _empty(path):
    path.write_bytes(b"")


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _forge(key, value):
    def forge(path):
        if path.suffix == ".json":
            path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))

    return forge


def _nest(path):
    path.write_text("[" * 100_000)


def _pipe(path):
    path.unlink()
    os.mkfifo(path)


def _respell(path):
    """A character of the tokenizer is another: the ids fit as before."""
    if path.suffix == ".json":
        path.write_text(path.read_text().replace("z", "{").replace("🌙", "🌚"))


@pytest.mark.parametrize("suffix", [".ids", ".json"])
@pytest.mark.parametrize(
    "damage",
    [
        _nest,
        _pipe,
        _respell,
        _forge("digest", "0" * 16),
        _forge("tokenizer", 3),
        _forge("dtype", []),
    ],
)
def test_a_forged_token_file_is_made_again(corpus, suffix, damage, cache):
    text = whole(open_text(corpus))
    (stored,) = (cache / "corpora").glob(f"*{suffix}")
    damage(stored)
    assert whole(open_text(corpus)) == text


def test_ids_that_are_no_tokens_are_made_again(corpus, cache):
    text = whole(open_text(corpus))
    (stored,) = (cache / "corpora").glob("*.json")
    described = json.loads(stored.read_text())
    ids = np.full(400, 60_000, dtype="<u2")
    ids.tofile(stored.with_suffix(".ids"))
    tokenizer = tokenizer_from_json(described["tokenizer"])
    described["digest"] = sources.corpus_digest(ids, tokenizer)  # all fits together
    stored.write_text(json.dumps(described))
    assert whole(open_text(corpus)) == text


@pytest.mark.parametrize("suffix", [".ids", ".json"])
@pytest.mark.parametrize("damage", [_cut, _empty, _flip, os.unlink])
def test_a_damaged_token_file_is_made_again(corpus, cache, suffix, damage):
    text = whole(open_text(corpus))
    (stored,) = (cache / "corpora").glob(f"*{suffix}")
    before = stored.read_bytes()
    damage(stored)
    assert whole(open_text(corpus)) == text
    if suffix == ".ids":
        assert stored.read_bytes() == before


def test_the_digest_of_a_large_corpus_misses_no_token():
    ids = np.zeros(2**27 // 2, dtype=np.uint16)  # 128 MiB
    tokenizer = CharacterTokenizer("ab")
    before = sources.corpus_digest(ids, tokenizer)
    ids[2**20 - 1] = 1
    assert sources.corpus_digest(ids, tokenizer) != before


def test_two_processes_may_build_at_once(corpus, cache):
    code = (
        "import sys; from normlab.data import build_source\n"
        "options = {'kind': 'text', 'path': sys.argv[1], 'tokens': 'bpe', 'vocabulary': 400}\n"
        "s = build_source(options, 8)\n"
        "print(s.batch(0, 0).tokens.tolist())"
    )
    environment = {**os.environ, "PYTHONPATH": str(SRC), "XDG_CACHE_HOME": str(cache.parent)}
    builders = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(corpus)], stdout=subprocess.PIPE, env=environment
        )
        for _ in range(3)
    ]
    answers = {builder.communicate(timeout=60)[0] for builder in builders}
    assert [builder.returncode for builder in builders] == [0, 0, 0]
    assert len(answers) == 1
    assert not list((cache / "corpora").glob(".*"))


@pytest.mark.parametrize(
    ("content", "chunk", "what", "offset"),
    [
        (b"text" * 9 + b"\0", 2**22, "a NUL byte", 36),
        (b"text" * 9 + b"\0", 8, "a NUL byte", 36),
        (b"text" * 9 + b"\xff\xfe", 2**22, "bytes that are not UTF-8", 36),
        ("é".encode() * 9 + b"\xe9t\xe9", 5, "bytes that are not UTF-8", 18),
        ("é".encode() * 9 + b"\xc3", 2**22, "bytes that are not UTF-8", 18),
        ("é".encode() * 9 + b"\xc3", 19, "bytes that are not UTF-8", 18),
        ("wide".encode("utf-16-le"), 2**22, "a NUL byte", 1),
    ],
)
def test_a_file_that_is_not_text_is_named_with_the_place(
    corpus, content, chunk, what, offset, monkeypatch, cache
):
    monkeypatch.setattr(user_text, "CHUNK_BYTES", chunk)
    (corpus / "deep" / "image.png").write_bytes(content)
    with pytest.raises(NormlabError) as refused:
        open_text(corpus)
    assert str(refused.value).startswith(
        f"{corpus}/deep/image.png is not text: it holds {what} at offset {offset};"
    )
    assert not list((cache / "corpora").glob("*"))


NOT_PLAIN = {
    "a.jsonl": (b'{"text": "to be"}\n' * 20, "JSON lines"),
    # Recognized by what they hold, whatever they are called.
    "a": (b'{"text": "to be"}\n' * 20, "JSON lines"),
    "a.jsonl.bak": (b'\n{"text": "to be"}\n' * 20, "JSON lines"),
    "a.yaml": (b"text: to be\n" * 20, "YAML"),
    "A.JSON": (b'["to be"]', "JSON"),
    "a.csv": (b"text,label\nto be,1\n" * 20, "CSV"),
    "a.txt.gz": (gzip.compress(b"to be"), "gzip"),
    "a.docx": (b"PK\x03\x04 and the rest", "zip archive or an office document"),
    "a.pdf": (b"%PDF-1.4\n all of it ASCII", "PDF"),
    "utf16.txt": ("to be".encode("utf-16"), "UTF-16"),
}


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_a_file_that_is_not_plain_text_is_named_with_what_it_is(corpus, name):
    content, kind = NOT_PLAIN[name]
    (corpus / name).write_bytes(content)
    for path in (corpus, corpus / name, corpus / "*"):
        with pytest.raises(NormlabError, match=rf"{name} is .*{kind}.*data\.path"):
            open_text(path)
    (corpus / name).rename(corpus / ".aside")
    open_text(corpus)


@pytest.mark.parametrize("bytes_", [b"a", b"\n"])
def test_a_text_of_one_symbol_is_refused(tmp_path, bytes_):
    (tmp_path / "a.txt").write_bytes(bytes_ * 4000)
    with pytest.raises(ConfigError, match=r"nothing but .*nothing to predict"):
        open_text(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"xyz" * 1000 + bytes_ * 600)
    with pytest.raises(ConfigError, match="validation split"):
        open_text(tmp_path)


@pytest.mark.parametrize("tokens", ["characters", "bpe"])
def test_no_text_at_all_is_said(tmp_path, tokens):
    (tmp_path / "a.txt").touch()
    with pytest.raises(NormlabError, match="empty"):
        open_text(tmp_path, tokens=tokens)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("absent.txt", "matches no file"),
        ("*.rst", "matches no file"),
        ("~no-such-user/a", "matches no file"),
        ("corpora.txt", r"matches no file: did you mean corpus\.txt\? give"),
        (".", "holds no file to read"),
        ("pipe", "holds no file to read"),
        ("x" * 300, "cannot be searched"),
    ],
)
def test_a_path_without_files_is_refused(tmp_path, monkeypatch, path, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".hidden").touch()
    (tmp_path / "corpus.txt").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NormlabError, match=said) as refused:
        open_text(path)
    assert f"data.path={path} " in str(refused.value)


def test_a_file_or_folder_that_cannot_be_read_is_named(corpus, monkeypatch):
    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        with pytest.raises(NormlabError, match=r"a\.txt cannot be read \(Permission denied\)"):
            list(user_text.read_text_chunks([corpus / "a.txt"]))
    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", refuse)
        with pytest.raises(NormlabError, match=r"cannot be searched .*Permission denied"):
            open_text(corpus)


def test_a_corpus_that_changes_under_the_reader_is_refused(corpus, monkeypatch):
    read_chunks = user_text.read_text_chunks

    def growing(found):
        yield from read_chunks(found)
        with (corpus / "a.txt").open("a") as log:
            log.write("more")

    before = (corpus / "a.txt").read_text()
    with monkeypatch.context() as patch:
        patch.setattr(user_text, "read_text_chunks", growing)
        with pytest.raises(NormlabError, match="changed while they were read"):
            open_text(corpus)
    # As it was again: nothing of what was read in between is taken for it.
    (corpus / "a.txt").write_text(before)
    assert whole(open_text(corpus)).startswith(before + VERSE)


def test_a_cache_that_cannot_be_written_is_said_before_anything_is_read(corpus, cache, monkeypatch):
    monkeypatch.setattr(user_text, "read_text_chunks", lambda _: pytest.fail("read"))
    cache.parent.mkdir(exist_ok=True)
    cache.write_text("a file where the folder should be")
    with pytest.raises(NormlabError, match=r"cache folder .* cannot be written"):
        open_text(corpus)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"path": ""}, "data=text needs data.path="),
        ({"path": None}, "data=text needs data.path="),
        ({"tokens": "bpe", "vocabulary": 100}, "data.vocabulary=100 has no room"),
    ],
)
def test_an_impossible_request_is_refused_by_name(corpus, options, said):
    with pytest.raises(ConfigError) as refused:
        build_source({"kind": "text", "path": str(corpus), **options}, 8)
    assert said in str(refused.value)


def test_too_little_text_for_the_context_names_the_longest(corpus):
    with pytest.raises(ConfigError, match=r"data\.path=.*gives 270 for training and 30 for valid"):
        open_text(corpus / "a.txt", context=64)
    assert len(open_text(corpus / "a.txt", context=29).validation()) == 1


def test_the_command_refuses_what_is_no_text_before_it_trains(train_py, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "to be"}\n' * 200)
    (tmp_path / "b.txt").write_text("\n" * 4000)
    for name, code, word in (("a.jsonl", 1, "JSON lines"), ("b.txt", 2, r"nothing but '\n'")):
        path = tmp_path / name
        answer = train_py("data=text", f"data.path={path}", *TINY, f"output_dir={tmp_path}/out")
        assert (answer.code, answer.err.count("\n")) == (code, 1)
        assert f"{path}" in answer.err
        assert word in answer.err
    assert not (tmp_path / "out").exists()
