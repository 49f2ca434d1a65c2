import pytest

from prectr.errors import UsageError
from prectr.labelling.config import TeacherConfig
from prectr.labelling.prompt import (
    LABELS,
    PromptTemplate,
    label_token_ids,
    load_prompt,
    query_words_by_match,
    tokenise_prompts,
)
from prectr.labelling.teacher_model import load_tokenizer, new_model, train_bpe


def test_words_are_split_by_exact_match_in_query_order():
    shared, missing = query_words_by_match(["blue Nokia 3310", "sofa", "a b"], ["NOKIA 3310 battery", "couch", "b, a!"])
    assert shared == ["nokia 3310", "none", "a b"]
    assert missing == ["blue", "sofa", "none"]


def test_braces_in_the_texts_stay_as_they_are():
    template = PromptTemplate("t", "Item: {title} Query: {query} again {query}")
    assert template.render(["{title}"], ["A {query} b"]) == ["Item: a {query} b Query: {title} again {title}"]


def test_an_edited_template_is_another_version():
    assert PromptTemplate("t", "{query}{title}").version != PromptTemplate("t", "{query} {title}").version


def test_a_template_without_a_title_is_refused(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("Query: {query}")
    with pytest.raises(UsageError, match=r"lacks \{title\}"):
        load_prompt(str(file))


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["nokia 3310 battery", load_prompt("relevance_v1").text], 400, 192)


def test_each_label_is_one_token_of_its_own_after_the_prompt(tokenizer):
    tokens = label_token_ids(tokenizer)
    assert tokenizer.convert_ids_to_tokens(tokens) == list(LABELS)
    prompt = tokenise_prompts(tokenizer, load_prompt("relevance_v1"), ["nokia"], ["nokia 3310"], 192)[0]
    assert tokenizer.decode(prompt).endswith("Grade:")


def test_a_long_title_is_cut_and_the_question_is_kept(tokenizer):
    template = load_prompt("relevance_v1")
    full = tokenise_prompts(tokenizer, template, ["battery"], ["nokia " * 300], 10_000)[0]
    short = tokenise_prompts(tokenizer, template, ["battery"], ["nokia " * 300], 192)[0]
    assert len(full) > 192 >= len(short)
    assert short[-10:] == full[-10:]


def test_a_saved_tokenizer_asks_with_the_tokens_that_were_trained(tokenizer, tmp_path):
    # transformers rebuilds Qwen2's own splitting for a Qwen2 checkpoint, whatever the tokenizer file says.
    new_model(TeacherConfig(), len(tokenizer), tokenizer.eos_token_id).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    pairs = (["nokia 3310", "CAFÉ\u00a0x²"], ["Nokia 3310 Battery, 2x!", "İ don't\n\nknow  "])
    template = load_prompt("relevance_v1")
    loaded = load_tokenizer(str(tmp_path))
    assert tokenise_prompts(loaded, template, *pairs, 192) == tokenise_prompts(tokenizer, template, *pairs, 192)


class TwoPieces:
    unk_token_id = None

    def encode(self, text, add_special_tokens):
        return [7, ord(text)]


def test_a_tokenizer_that_splits_a_label_is_refused_by_name():
    with pytest.raises(UsageError, match="label '0'"):
        label_token_ids(TwoPieces())
