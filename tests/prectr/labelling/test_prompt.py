import polars as pl
import pytest
import yaml

from prectr.core.errors import UsageError
from prectr.labelling.config import TeacherConfig
from prectr.labelling.own_teacher.model import load_tokenizer, new_model, train_bpe
from prectr.labelling.prompt import (
    PromptTemplate,
    catalogue_language,
    label_token_ids,
    load_prompt,
    show_prompt,
    tokenise_prompts,
)
from prectr.labelling.word_match import query_words_by_match

LANGUAGES = ("de", "en", "es", "fr", "ja", "zh")


def pairs_of(queries, titles, **fields):
    return pl.DataFrame({"query": queries, "title": titles, **fields})


def test_words_are_split_by_exact_match_in_query_order():
    shared, missing = query_words_by_match(
        ["blue Nokia 3310", "sofa", "", "a b"], ["NOKIA 3310 battery", "couch", "x", "b, a!"]
    )
    assert shared == ["nokia 3310", "none", "none", "a b"]
    assert missing == ["blue", "sofa", "none", "none"]


def test_words_of_a_script_without_blanks_are_neighbouring_characters():
    shared, missing = query_words_by_match(
        ["华为手机壳", "茶", "iPhone15ケース 赤"], ["手机壳 华为", "绿茶", "赤いiphone15"], "无"
    )
    assert shared == ["华为 手机 机壳", "茶", "iphone15 赤"]
    assert missing == ["为手", "无", "ケー ース"]


def test_the_english_prompt_is_the_text_that_the_teacher_of_the_demo_was_tuned_on():
    prompt = load_prompt("relevance_v1").render(pairs_of(["blue  Nokia 3310"], ["NOKIA 3310 Battery"]))
    assert prompt == [
        "Grade how well an item answers a search query.\n"
        "3: exactly what is asked for. 2: the right product, a detail differs. "
        "1: related only, as an accessory or a sibling. 0: something else.\n"
        "Item: nokia 3310 battery\n"
        "Query: blue nokia 3310\n"
        "Query words in the item: nokia 3310\n"
        "Missing: blue\n"
        "Grade:"
    ]


def test_the_same_normal_form_gives_the_same_prompt_and_null_is_empty():
    template = load_prompt("rubric_v1")
    fields = {"category": ["Phones", None], "brand": ["", None]}
    one = template.render(pairs_of(["ＮＯＫＩＡ 3310"], ["Straße "], category=["PHONES"], brand=[None]))
    two = template.render(pairs_of(["nokia  3310", "a"], ["STRASSE", "b"], **fields))
    assert one[0] == two[0]
    assert two[1].endswith("Query: a\nItem: b\nCategory: \nBrand: \nGrade:")


def test_braces_in_the_texts_stay_as_they_are():
    template = PromptTemplate("t", "en", "Grade.\n", "Item: {title} Query: {query} again {query}")
    prompts = template.render(pairs_of(["{title}"], ["A {query} b"]))
    assert prompts == ["Grade.\nItem: a {query} b Query: {title} again {title}"]


@pytest.mark.parametrize("name", [f"relevance_v1.{code}" for code in LANGUAGES] + ["rubric_v1.en", "rubric_v1.zh"])
def test_every_template_states_each_grade_before_the_pair(name):
    template = load_prompt(*name.split("."))
    assert template.version.startswith(f"{name}-")
    assert template.shown == (("category", "brand") if "rubric" in name else ())
    assert all(definition in template.prefix for definition in template.grades)
    prompt = template.render(pairs_of(["zyx 1"], ["zyx wvu"], category=["tsr"], brand=["qpo"]))[0]
    assert prompt.startswith(template.prefix) and not prompt[-1].isspace() and "{" not in prompt


@pytest.mark.parametrize(
    "change", [{"prefix": "Judge.\n"}, {"pair": "{query} {title}"}, {"empty": "-"}, {"labels": ("a", "b", "c", "d")}]
)
def test_an_edited_template_is_another_version(change):
    same = {"name": "t", "language": "en", "prefix": "Grade.\n", "pair": "{query}{title}"}
    assert PromptTemplate(**(same | change)).version != PromptTemplate(**same).version


def written(tmp_path, **change):
    content = {
        "labels": ["a", "b", "c", "d"],
        "grades": ["none", "some", "most", "all"],
        "prefix": "a {grade_0}, b {grade_1}, c {grade_2}, d {grade_3}\n",
        "pair": "{query} {brand} {title}?",
    }
    file = tmp_path / "mine.de.yaml"
    file.write_text(yaml.safe_dump({key: value for key, value in (content | change).items() if value != "absent"}))
    return str(file)


def test_a_template_of_ones_own_is_loaded_by_its_path(tmp_path):
    template = load_prompt(written(tmp_path), "fr")
    assert template.version.startswith("mine.de-")
    assert template.text == "a none, b some, c most, d all\n{query} {brand} {title}?"
    assert (template.labels, template.shown) == (("a", "b", "c", "d"), ("brand",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pair": "{query}?"}, r"pair: lacks the placeholder \{title\}"),
        ({"pair": "{query} {title} {price}"}, r"pair: the placeholder \{price\} is unknown"),
        ({"prefix": "For {query}: {grade_1}"}, r"prefix: the placeholder \{query\} belongs into pair"),
        ({"prefix": "{grade_4}"}, r"prefix: the placeholder \{grade_4\} is unknown"),
        ({"prefix": " "}, r"prefix: must be text"),
        ({"labels": ["a", "b", "c"]}, r"labels: must be a list of four"),
        ({"labels": ["a", "b", "c", "a"]}, r"labels: .* must be four different answers"),
        ({"labels": ["a", "b", "c", "not so"]}, r"labels: .* without blanks"),
        ({"labels": [0, 1, 2, 3]}, r"labels: 0 is not text; write it in quotes"),
        ({"grades": "absent"}, r"lacks the key 'grades'"),
        ({"suffix": "x"}, r"unknown key 'suffix'"),
    ],
)
def test_a_template_that_is_not_well_formed_is_refused_by_file_and_key(tmp_path, change, message):
    with pytest.raises(UsageError, match=rf"mine\.de\.yaml: {message}" if "lacks the key" not in message else message):
        load_prompt(written(tmp_path, **change))


def test_a_template_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(UsageError, match=r"'rubric_v1' in language 'de'.*relevance_v1\.de.*rubric_v1\.zh"):
        load_prompt("rubric_v1", "de")


def test_the_language_of_a_catalogue_is_told_by_its_script():
    assert catalogue_language(pl.Series(["Nokia 3310", "华为 case", None, "Sofa"])) == "en"
    assert catalogue_language(pl.Series(["Apple iPhone 手机壳", "华为の手机", "绿茶", "红茶", "Nokia"])) == "zh"
    assert catalogue_language(pl.Series(["ノートパソコン", "お茶 500ml", "Apple ケース", "赤い靴"])) == "ja"
    assert catalogue_language(pl.Series([], dtype=pl.String)) == "en"


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["nokia 3310 battery", load_prompt("relevance_v1").text], 400, 192)


CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content | trim }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)


@pytest.mark.parametrize("chat_template", [None, CHAT])
def test_a_prompt_has_the_tokens_of_its_whole_text_however_many_are_asked(tokenizer, chat_template, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", chat_template)
    template = load_prompt("relevance_v1")
    queries = [f"nokia {number} 壳" for number in range(130)]
    pairs = pairs_of(queries, ["Battery", "\n x² don't", "<|im_end|>", "{title}", ""] * 26)
    texts = template.render(pairs)
    if chat_template:
        messages = [[{"role": "user", "content": text}] for text in texts]
        texts = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert tokenise_prompts(tokenizer, template, pairs, 10_000) == tokenizer(texts)["input_ids"]
    assert tokenise_prompts(tokenizer, template, pairs[:0], 10_000) == []


def test_each_label_is_one_token_of_its_own_after_the_prompt(tokenizer):
    template = load_prompt("relevance_v1")
    tokens = label_token_ids(tokenizer, template)
    assert tokenizer.convert_ids_to_tokens(tokens) == list(template.labels)
    prompt = tokenise_prompts(tokenizer, template, pairs_of(["nokia"], ["nokia 3310"]), 192)[0]
    assert tokenizer.decode(prompt).endswith("Grade:")


@pytest.mark.parametrize("title", ["nokia " * 300, "壳" * 300, "battery 3310 " + "nokia " * 300])
def test_a_long_title_is_cut_at_its_end_and_all_else_is_kept(tokenizer, title):
    template = PromptTemplate("t", "en", "Grade.\n", "Item: {title}\nQuery: {query}\nMissing: {missing}\nGrade:")
    cut, whole = tokenise_prompts(tokenizer, template, pairs_of(["battery", "a"], [title, "b"]), 100)
    assert 95 <= len(cut) <= 100
    text, other = tokenizer.decode(cut), tokenizer.decode(whole)
    shown = text.removeprefix("Grade.\nItem: ").partition("\nQuery: battery\nMissing: ")[0]
    assert shown and title.startswith(shown)
    assert text.endswith("\nGrade:") and other == "Grade.\nItem: b\nQuery: a\nMissing: a\nGrade:"


def test_a_query_that_is_too_long_comes_back_whole_for_the_engine_to_refuse(tokenizer):
    template, pairs = load_prompt("relevance_v1"), pairs_of(["battery " * 1200], ["nokia"])
    assert tokenise_prompts(tokenizer, template, pairs, 192) == tokenizer(template.render(pairs))["input_ids"]


def test_a_saved_tokenizer_asks_with_the_tokens_that_were_trained(tokenizer, tmp_path):
    # transformers rebuilds Qwen2's own splitting for a Qwen2 checkpoint, whatever the tokenizer file says.
    new_model(TeacherConfig(), len(tokenizer), tokenizer.eos_token_id).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    pairs = pairs_of(["nokia 3310", "CAFÉ\u00a0x²"], ["Nokia 3310 Battery, 2x!", "İ don't\n\nknow  "])
    template = load_prompt("relevance_v1")
    loaded = load_tokenizer(str(tmp_path))
    assert tokenise_prompts(loaded, template, pairs, 192) == tokenise_prompts(tokenizer, template, pairs, 192)


def test_a_label_that_is_more_than_one_token_is_refused_by_name(tokenizer):
    template = PromptTemplate("t", "en", "", "", labels=("0", "unthinkable", "2", "3"))
    with pytest.raises(UsageError, match=r"label 'unthinkable' of prompt t\.en"):
        label_token_ids(tokenizer, template)


def test_a_shown_prompt_is_the_text_that_is_asked(tokenizer, monkeypatch):
    template, pair = load_prompt("relevance_v1"), pairs_of(["battery"], ["Nokia"])
    monkeypatch.setattr(tokenizer, "chat_template", CHAT)
    page = show_prompt(template, tokenizer, pair)
    ids = tokenise_prompts(tokenizer, template, pair, 10_000)[0]
    assert page.endswith(f"\n\n{tokenizer.decode(ids)}")
    assert template.version in page and f", {len(ids)} in this prompt" in page
    for label, token in zip(template.labels, label_token_ids(tokenizer, template), strict=True):
        assert f"{label} (token {token}): {template.grades[int(label)]}" in page
    assert show_prompt(template, None, pair).endswith(f"\n\n{template.render(pair)[0]}")
