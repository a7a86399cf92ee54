#!/usr/bin/env python3
"""Writes the fixtures beside it: two tiny tokenizers, and what Hugging Face makes of texts, chats and small templates.

    pip install transformers==5.23.0 tokenizers==0.23.3 jinja2==3.1.6
    python runtime/cases/text/make_fixtures.py

`renders.json` holds chat templates rendered by transformers (Jinja2 itself), the independent reference for
`TextModel::render_chat`; `encodings.json` holds ids and decoded text by the Python tokenizers package. `jinja.json` keeps
small templates by topic with what they print, null where Jinja2 raises: add a template there, and this fills in the text.
"""
import datetime, json, pathlib
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

HERE = pathlib.Path(__file__).parent
CORPUS = [
    "The quick brown fox jumps over the lazy dog. Kiln compiles a model to kernels, one for each place.",
    "Straße, naïve café — 東京 と 大阪, Привет мир, שלום, 🚀🎉 and 👩‍🚀 are characters too.",
    "def f(x):\n    return x * 2  # ok\n\nprint(f(21))\n", "In 2024 there were 366 days; pi is 3.14159.",
    "the model the weights the tokens the stream the text and then again the model and the weights",
]
SPECIAL = ["<|begin|>", "<|end|>", "<|im_start|>", "<|im_end|>"]
# The pre-tokenizer of Llama 3 and Qwen: its look-ahead is what a plain regular expression cannot do.
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def byte_level():
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=420, show_progress=False, special_tokens=SPECIAL,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tok.train_from_iterator(CORPUS, trainer)
    tok.add_tokens([AddedToken("<think>", special=False, normalized=False), AddedToken("東西", special=False, normalized=False)])
    begin = tok.token_to_id("<|begin|>")
    tok.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", begin)])
    return tok


def byte_fallback():
    """As in Gemma: spaces become U+2581, characters outside the vocabulary become bytes."""
    source = Tokenizer(models.BPE())
    source.normalizer = normalizers.Replace(" ", "▁")
    source.train_from_iterator([line for line in CORPUS if line.isascii()], trainers.BpeTrainer(
        vocab_size=160, show_progress=False))
    trained = json.loads(source.to_str())["model"]
    tokens = ["<pad>", "<bos>", "<eos>", "<unk>"] + [f"<0x{b:02X}>" for b in range(256)]
    tokens += sorted(trained["vocab"], key=trained["vocab"].get)
    tok = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, [tuple(m) for m in trained["merges"]],
                               unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tok.normalizer = normalizers.Replace(" ", "▁")
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tok.add_special_tokens(["<pad>", "<bos>", "<eos>", "<unk>"])
    tok.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    return tok


TEXTS = ["Hello, world!", "The year 2024 had 366 days; pi is 3.14159.", "  two leading spaces\n\nand\ttabs  ",
         "naïve café — 東京 🚀", "def f(x):\n    return x*2  # ok", "", " ", "<|im_start|>user\n<think>東西", "<eos>"]

USER = {"role": "user", "content": "What is the capital of France?"}
THINK = {"role": "assistant", "content": "<think>\nFrance, so\n</think>\n\nParis."}
SYSTEM = {"role": "system", "content": "  Answer briefly. "}
AGAIN = {"role": "user", "content": "  And <b>of</b> \"Spain\"?\n"}
CHATS = {
    "one question": [USER], "system": [SYSTEM, USER], "dialogue": [USER, THINK, AGAIN],
    "system dialogue": [SYSTEM, USER, THINK, AGAIN, THINK], "answered": [USER, THINK], "user twice": [USER, AGAIN],
}
# With what the assistant thought apart from what it said: `thinking` or `reasoning_content`, as the template has it.
THOUGHT = {"role": "assistant", "content": "Paris.", "reasoning": "France, so\nParis."}
REASONING = {"thought": [USER, THOUGHT], "thought before": [SYSTEM, USER, THOUGHT, AGAIN], "thought twice": [USER, THOUGHT, AGAIN, THOUGHT],
             "marks": [USER, THOUGHT | {"reasoning": "<|channel|>"}, AGAIN], "tool without call": [USER, {"role": "tool", "content": "1"}]}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Tells the weather.", "parameters": {
    "type": "object", "required": ["place"], "properties": {
        "place": {"type": "string", "description": "A <city>"}, "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
        "days": {"type": "array", "items": {"type": "integer"}, "nullable": True}, "either": {"type": ["number", "null"]},
        "deep": {"type": "array", "items": {"type": "object", "required": ["a"], "properties": {
            "a": {"type": "string"}, "b": {"type": "object", "nullable": True}}}},
        "long": {"type": "array", "items": {"type": "string", "enum": ["x" * 30, "y" * 30]}}}}}},
    {"type": "function", "function": {"name": "now", "description": "The time."}}]
ARGUMENTS = {"harmony": [{"reasoning_effort": "high"}, {"model_identity": "You are é.", "builtin_tools": ["python"]}, {"tools": TOOLS}],
             "qwen3": [{"enable_thinking": False}, {"tools": TOOLS[1:]}]}
FEATURES = [{"role": "user", "content": " a naïve cat "}, {"role": "skip", "content": "x"},
            {"role": "assistant", "content": " ok\n"}, {"role": "user", "content": "tab\t\"quote\" \\ \u2028 é"},
            {"role": "stop", "content": "y"}, {"role": "user", "content": "never"}]
# 2024-02-29 13:05:09 UTC
NOW = 1709211909


class FixedDate(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        # Naive, as transformers asks for it.
        return cls.fromtimestamp(NOW, datetime.timezone.utc).replace(tzinfo=None)


def renders(tok):
    chat_template_utils.datetime = FixedDate
    hf = PreTrainedTokenizerFast(tokenizer_object=tok, bos_token="<|begin|>", eos_token="<|im_end|>", pad_token="<|end|>")
    out = []
    for path in sorted((HERE / "templates").glob("*.jinja")):
        hf.chat_template = path.read_text()
        if path.stem in ("features", "expressions"):
            cases = [("features", FEATURES, {})]
        else:
            chats = CHATS | (REASONING if path.stem in ARGUMENTS else {})
            cases = [(name, messages, {}) for name, messages in chats.items()]
            cases += [("system dialogue", chats["system dialogue"], arguments) for arguments in ARGUMENTS.get(path.stem, [])]
        for name, messages, arguments in cases:
            for prompt in (False, True):
                both = [{"thinking": m["reasoning"], "reasoning_content": m["reasoning"]} | m if "reasoning" in m else m for m in messages]
                both = [{key: value for key, value in m.items() if key != "reasoning"} for m in both]
                try:
                    text = hf.apply_chat_template(both, tokenize=False, add_generation_prompt=prompt, **arguments)
                except Exception as error:
                    text = None
                    print(f"{path.stem}, {name}: {error}")
                out.append({"template": path.stem, "chat": name, "messages": messages,
                            "arguments": arguments, "add_generation_prompt": prompt, "text": text})
    return out


def jinja():
    """Fills in `jinja.json`, one case a line."""
    chat_template_utils.datetime = FixedDate
    fixture = json.loads((HERE / "jinja.json").read_text())
    fixture["now"] = NOW
    for case in fixture["cases"]:
        try:
            template = chat_template_utils._compile_jinja_template(case["template"])
            case["text"] = template.render(messages=fixture["messages"], tools=None, documents=None,
                                           add_generation_prompt=True, **fixture["values"])
        except Exception:
            case["text"] = None
    line = lambda value: json.dumps(value, ensure_ascii=False)
    head = ",\n".join(f"{line(key)}: {line(value)}" for key, value in fixture.items() if key != "cases")
    cases = ",\n".join(map(line, fixture["cases"]))
    (HERE / "jinja.json").write_text(f'{{{head},\n"cases": [\n{cases}\n]}}\n')


def encodings(tok):
    cases = []
    for text in TEXTS:
        ids = tok.encode(text, add_special_tokens=False).ids
        cases.append({"text": text, "ids": ids, "with_special": tok.encode(text).ids,
                      "decoded": tok.decode(ids, skip_special_tokens=False), "plain": tok.decode(ids)})
    return cases


def write(name, value):
    (HERE / name).write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")


bpe, fallback = byte_level(), byte_fallback()
write("byte_level.json", json.loads(bpe.to_str()))
write("byte_fallback.json", json.loads(fallback.to_str()))
write("encodings.json", {"byte_level": encodings(bpe), "byte_fallback": encodings(fallback)})
write("renders.json", {"now": NOW, "renders": renders(bpe)})
jinja()
