#!/usr/bin/env python3
"""Writes published.json: how Hugging Face's tokenizers cut some tricky texts, by the names that GGUF files have for it.

The steps are those of the models' published tokenizer.json, as llama.cpp's convert_hf_to_gguf_update.py names the models; where a
model publishes none for the tokenizers library (kimi-k2, afmoe, default and some newer ones), llama.cpp's.

  pip install tokenizers==0.23.3 && python make.py

steps.json beside it is what the compiler writes for the same names (its test makes it with KILN_BLESS=1)."""
import itertools, json, pathlib
from tokenizers import Regex, pre_tokenizers as pre

cut = lambda pattern: pre.Split(Regex(pattern), "isolated")
byte = pre.ByteLevel(add_prefix_space=False, use_regex=False)
gpt2 = pre.ByteLevel(add_prefix_space=False, use_regex=True)
digits = pre.Digits(individual_digits=True)
C = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
words = lambda digit: C + r"|[^\r\n\p{L}\p{N}]?\p{L}+|" + digit + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
upper, lower = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
cased = lambda c, digit: rf"[^\r\n\p{{L}}\p{{N}}]?{upper}*{lower}+{c}|[^\r\n\p{{L}}\p{{N}}]?{upper}+{lower}*{c}|{digit}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
llama3, qwen2, o200k = words(r"\p{N}{1,3}"), words(r"\p{N}"), cased(C + "?", r"\p{N}{1,3}")
signs = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"""
deepseek3 = signs + r"[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
han = "[一-龥\u3040-ゟ゠-ヿ]+"
gpt2_words = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
letters = "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+"
bloom = " ?[^(\\s|[.,!?…。，、।۔،])]+"
kimi_upper, kimi_lower = upper[:-1] + r"&&[^\p{Han}]]", lower[:-1] + r"&&[^\p{Han}]]"

CUTS = {
    "default": [cut(r"[\p{P}\$\+<=>\^~\|]+"), cut(gpt2_words), cut(r"\p{N}+"), cut("[0-9][0-9][0-9]"), byte],
    "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano dbrx smaug-bpe glm4 chatglm-bpe": [cut(llama3), byte],
    "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2": [cut(qwen2), byte],
    "qwen35": [cut(C + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"), byte],
    "gpt-4o llama4 kanana2 talkie minimax-m2 granite-embed-multi-97m": [cut(o200k), byte],
    "tekken": [cut(cased("", r"\p{N}")), byte],
    "gpt-2 phi-2 jais trillion granite-docling exaone4 a.x-4.0 mellum gigachat modern-bert jina-es jina-de jina-v2-es jina-v2-de olmo mpt": [gpt2],
    "starcoder refact smollm codeshell exaone minerva-7b mellum2 command-r": [digits, gpt2],
    "deepseek-llm": [cut(r"[\r\n]"), cut(letters), cut("\\s?[!-/:-~！-／：-～‘-‟\u3000-。]+"), cut(r"\s+$"), cut("[一-龥ࠀ-一가-\ud7ff]+"), digits, byte],
    "deepseek-coder": [cut(r"[\r\n]"), cut(r"\s?\p{L}+"), cut(r"\s?\p{P}+"), cut("[一-龥ࠀ-一가-\ud7ff]+"), digits, byte],
    "deepseek-v3 hunyuan-dense joyai-llm hy_v4": [cut(r"\p{N}{1,3}"), cut(han), cut(deepseek3), byte],
    "spark2_5": [cut(r"\p{N}{1,3}"), cut(han), cut(signs + r"|[\r\n]|\s+(?!\S)|\s+"), cut(r"\p{N}"), byte],
    "afmoe": [cut(r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"), cut("[一-鿿㐀-䶿\uf900-\ufaff\u3040-ゟ゠-ヿ･-ﾟ⼀-\u2fdfเ-\u0e7f\u0e80-\u0effក-\u17ffက-႟ꩠ-ꩿꧠ-\ua9ff가-\ud7afᄀ-ᇿ]+"), cut(deepseek3), byte],
    "youtu": [cut("[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|" + han), cut(cased(C + "?", r"\p{N}")), byte],
    "falcon": [pre.Punctuation("contiguous"), gpt2, pre.Digits(individual_digits=False), cut("[0-9][0-9][0-9]")],
    "poro-chat bloom gpt3-finnish": [cut(bloom), byte],
    "viking": [cut(bloom), digits, byte],
    "chameleon": [cut("<sentinel:[0-9]+>"), cut("(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z"), cut(r"([\t\n]|    |  )"), digits, pre.Punctuation("isolated"), gpt2],
    "tiny_aya cohere2moe": [cut(r"\d{1,3}(?=(?:\d{3})*\b)"), cut(o200k), byte],
    "superbpe": [cut(r"\p{N}+"), cut(r"(?=(\d{3})+(?!\d))"), byte],
    "bailingmoe bailingmoe2 llada-moe": [cut(r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"), byte],
    "seed-coder": [cut(C + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"), byte],
    "ufakzeka": [cut(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"), byte],
    "laguna": [cut(r"[^\n]+|[\n]+"), cut(qwen2), byte],
    "exaone-moe": [cut(C + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"), byte],
    "minicpm5": [cut(r"\p{N}{1,3}"), cut(words(r"\p{N}+")), byte],
    "jais-2": [cut(C + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|" + "|".join(rf"\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4)) + r"|\s{1,2}(?!\S)|\s{1}"), byte],
    "kimi-k2": [cut(rf"[\p{{Han}}]+|[^\r\n\p{{L}}\p{{N}}]?{kimi_upper}*{kimi_lower}+{C}?|[^\r\n\p{{L}}\p{{N}}]?{kimi_upper}+{kimi_lower}*{C}?|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"), byte],
}

PARTS = ["Hello", "getUserName", "HTTPServer", "don't", "I'LL", "we'Ve", "café", "cafe\u0301", "東京", "ひらがなカタカナ", "한국어", "Ελλάδα", "привет", "नमस्ते", "สวัสดี", "ՀԱՅ", "ʻokina",
         "7", "42", "365", "1234567", "3.14159", "½²", "٣٤٥", "x1y22", "!", "...", "?!", "(a)", "$5+3=8", "`code`", "<a|b>", "a/b//c", "–“q”…", "。、！", "🚀👍🏽", " ", "  ", "   ", "\t", "\n", "\r\n", "\n\n ", " \n"]
TEXTS = PARTS + [a + b for a, b in itertools.product(PARTS[::2], PARTS[1::3])] + [" ".join(PARTS[i:i + 5]) for i in range(0, len(PARTS), 3)] + \
    ["def f(x):\n    return x*2  # ok\n\n\nclass A:\n\tpass\n", "  if (a>=10 && b!=3) {\r\n\tprintf(\"%d\\n\", 100000);\r\n}", "Prices: $1,234,567.89 or 1234 5678 90, 12:30, v1.2.3.", "a" + " " * 9 + "b" + " " * 33, "<sentinel:12>IMGIMGABCZ    x"]

def lengths(steps, text):
    pieces = pre.Sequence(steps).pre_tokenize_str(text)
    ends = [end for _, (_, end) in pieces]
    # A character whose bytes are cut has several pieces.
    return " ".join(str(b - a) for a, b in zip([0] + ends, ends))

splits = {names: [lengths(steps, text) for text in TEXTS] for names, steps in CUTS.items()}
out = pathlib.Path(__file__).with_name("published.json")
out.write_text(json.dumps({"texts": TEXTS, "splits": splits}, ensure_ascii=False, indent=0) + "\n")
print(len(TEXTS), "texts,", out.stat().st_size, "bytes")
