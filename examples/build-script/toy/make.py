"""Makes the toy model in this folder: a Llama of 91 thousand parameters that was taught five answers by heart.

pip install torch transformers tokenizers; python make.py
"""

import json
import pathlib
import random

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HERE = pathlib.Path(__file__).parent
ANSWERS = {
    "Hello!": "Hello! I am a toy model inside of this program.",
    "Who are you?": "A toy: 91 thousand parameters that know five answers by heart.",
    "What is the capital of France?": "The capital of France is Paris.",
    "Where are your weights?": "In the program itself. No file is read to answer you.",
    "Goodbye!": "Goodbye!",
}
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
START, END = "<|im_start|>", "<|im_end|>"


def tokenizer():
    """One token a byte, and the two marks."""
    vocab = {letter: id for id, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in (START, END)])
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=END, chat_template=TEMPLATE)


def conversation(rng):
    """One to three questions, each with its answer."""
    messages = []
    for question in rng.choices(list(ANSWERS), k=rng.randint(1, 3)):
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": ANSWERS[question]})
    return messages


def main():
    rng = random.Random(0)
    torch.manual_seed(0)
    text = tokenizer()
    config = LlamaConfig(
        vocab_size=len(text), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=text.convert_tokens_to_ids(END),
    )
    model = LlamaForCausalLM(config)
    steps = 1500
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    for step in range(steps):
        rows = [text.apply_chat_template(conversation(rng), return_dict=False) for _ in range(8)]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        labels = torch.tensor([row + [-100] * (longest - len(row)) for row in rows])
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 99:
            print(step + 1, loss.item(), flush=True)
    model = model.to(torch.bfloat16)
    for messages in (conversation(rng) for _ in range(100)):
        prompt = text.apply_chat_template(messages[:-1], add_generation_prompt=True, return_tensors="pt", return_dict=False)
        answer = model.generate(prompt, max_new_tokens=100, do_sample=False)[0, prompt.shape[1] :]
        answer = text.decode(answer, skip_special_tokens=True)
        assert answer == messages[-1]["content"], (messages, answer)
    model.save_pretrained(HERE)
    text.save_pretrained(HERE)
    (HERE / "generation_config.json").write_text(json.dumps({"eos_token_id": config.eos_token_id}) + "\n")


main()
