"""conf/claim: every file holds a claim, and one that does not is told in a sentence."""

from pathlib import Path

import pytest
import yaml

from normlab import config
from normlab.apps.claims.claim import (
    MEASUREMENT_TESTS,
    RUN_TESTS,
    Lower,
    Quantity,
    load_claims,
    read_claim,
)
from normlab.errors import ConfigError

GOOD = {
    "statement": "A is lower than B.",
    "source": "1910.07467",
    "published": {"text": "by much", "value": "-1e-1"},
    "setup": "a large model",
    "differs": "the size",
    "unit": "nats per token",
    "experiment": "claims_text",
    "test": {"kind": "lower", "a": "norm=rmsnorm", "b": "norm=layernorm", "margin": "2e-2"},
}


def write(folder: Path, raw: object, name: str = "mine") -> Path:
    (folder / "claim").mkdir(exist_ok=True)
    path = folder / "claim" / f"{name}.yaml"
    path.write_text(raw if isinstance(raw, str) else yaml.safe_dump(raw))
    return path


def test_every_file_of_ours_holds_a_claim() -> None:
    found = load_claims()
    assert len(found) == len(list((config.conf_folder() / "claim").glob("*.yaml")))
    assert {type(one.test) for one in found.values()} == {
        *RUN_TESTS.values(),
        *MEASUREMENT_TESTS.values(),
    }
    for name, one in found.items():
        assert one.statement.endswith("."), name
        text = (config.conf_folder() / "claim" / f"{name}.yaml").read_text()
        assert text.startswith("# "), name


def test_numbers_are_read_however_they_are_written(tmp_path: Path) -> None:
    one = read_claim(write(tmp_path, GOOD))
    assert one.test == Lower("norm=rmsnorm", "norm=layernorm", 0.02, Quantity.final)
    assert one.published.value == -0.1


def test_a_file_of_ones_own_is_added_and_goes_before_ours(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    write(tmp_path, GOOD, "rmsnorm_parity")
    found = load_claims(["mine", "rmsnorm_parity", "kaiming"], tmp_path)
    assert list(found) == ["mine", "rmsnorm_parity", "kaiming"]
    assert found["rmsnorm_parity"].statement == GOOD["statement"]
    assert len(load_claims((), tmp_path)) == len(load_claims()) + 1


TEST = GOOD["test"]
assert isinstance(TEST, dict)
BAD = {
    "a word of YAML": ["test is missing"],
    "": ["test is missing", "statement, source, published"],
    "a: [": ["is not YAML"],
    "unknown key": [{**GOOD, "statment": "x"}, "statment is not a key", "did you mean statement"],
    "missing key": [{k: v for k, v in GOOD.items() if k != "unit"}, "unit is missing"],
    "no test": [{**GOOD, "test": None}, "test is missing"],
    "nothing published": [{**GOOD, "published": None}, "published is missing"],
    "no such kind": [{**GOOD, "test": {"kind": "higher"}}, "test.kind=higher", "lower, parity"],
    "a key of the test": [{**GOOD, "test": {**TEST, "margn": 1}}, "test.margn", "test.margin"],
    "missing margin": [
        {**GOOD, "test": {k: v for k, v in TEST.items() if k != "margin"}},
        "test.margin is missing",
    ],
    "text for a number": [{**GOOD, "test": {**TEST, "margin": "wide"}}, "test.margin=wide"],
    "true for a number": [{**GOOD, "test": {**TEST, "margin": True}}, "test.margin=true"],
    "infinite": [{**GOOD, "test": {**TEST, "margin": ".inf"}}, "test.margin"],
    "negative": [{**GOOD, "test": {**TEST, "margin": -1}}, "test.margin=-1", "0 or more"],
    "no such quantity": [{**GOOD, "test": {**TEST, "quantity": "worst"}}, "test.quantity=worst"],
    "published is text": [{**GOOD, "published": "much"}, "published must hold text"],
    "a list for text": [{**GOOD, "setup": ["a"]}, "setup=['a']"],
    "both": [{**GOOD, "measurement": "depth"}, "either experiment or measurement"],
    "neither": [{**GOOD, "experiment": None}, "either experiment or measurement"],
    "arms without runs": [
        {**GOOD, "experiment": None, "measurement": "depth"},
        "test.kind=lower needs an experiment",
    ],
    "runs without arms": [
        {**GOOD, "test": {"kind": "value", "of": "x", "low": 1}},
        "test.kind=value needs a measurement",
    ],
    "no end": [
        {**GOOD, "experiment": None, "measurement": "x", "test": {"kind": "value", "of": "x"}},
        "test.low and test.high are both missing",
    ],
    "ends crossed": [
        {**GOOD, "test": {"kind": "level", "arm": "norm=dyt", "low": 2, "high": 1}},
        "test.low=2.0 is above test.high=1.0",
    ],
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_wrong_is_one_sentence_that_names_the_file(what: str, tmp_path: Path) -> None:
    first, *words = BAD[what]
    raw = what if isinstance(first, str) else first
    words = [first, *words] if isinstance(first, str) else words
    path = write(tmp_path, raw)
    with pytest.raises(ConfigError) as raised:
        read_claim(path)
    said = str(raised.value)
    assert said.startswith(str(path))
    assert "\n" not in said
    assert all(str(word) in said for word in words), said


def test_a_claim_of_an_experiment_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, {**GOOD, "experiment": "claims_texts"})
    with pytest.raises(
        ConfigError, match=r"claims_texts does not exist; did you mean claims_text\?"
    ):
        load_claims([path.stem], tmp_path)
    own = tmp_path / "experiment"
    own.mkdir()
    (own / "claims_texts.yaml").write_text("")
    assert load_claims([path.stem], tmp_path)[path.stem].experiment == "claims_texts"


def test_an_unknown_claim_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"claim=kaimig .* did you mean kaiming\? .*admin_post"):
        load_claims(["kaimig"])
    with pytest.raises(ConfigError, match="is not a folder"):
        load_claims((), tmp_path / "nowhere")
