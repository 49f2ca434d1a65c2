"""What an error quotes is bounded."""

from pathlib import Path

import pytest
import yaml

from prectr.core.config import FrozenConfig, load_config
from prectr.core.errors import UsageError, listed, quoted, shorten


def test_what_an_error_quotes_is_bounded_in_one_line() -> None:
    long = "line\n" * 1_000_000
    for text in (quoted(long), quoted([long] * 3), listed([long] * 1000), shorten(long), quoted({"a": long}, limit=5)):
        assert len(text) < 1000 and len(text.splitlines()) == 1
    assert quoted(long).endswith("... (6,000,002 characters)")
    assert listed([long] * 1000).endswith(" and 990 more")


def test_what_is_short_is_quoted_whole() -> None:
    assert quoted("a" * 78) == repr("a" * 78)
    assert listed([str(number) for number in range(10)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert (quoted(None), listed([]), shorten("")) == ("None", "", "")


def test_a_configuration_full_of_mistakes_gives_a_short_message(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump({f"key{number}" * 100: "a" * 10_000 for number in range(1000)}))
    with pytest.raises(UsageError) as refusal:
        load_config(FrozenConfig, file, [f"key={'a' * 10_000}"])
    assert len(str(refusal.value)) < 10_000 and str(refusal.value).endswith("991 more problems.")
