//! Apart, so that the lines in the expected errors stay.

use kiln_compiler::dsl::*;

#[derive(Config)]
pub struct SmallConfig {
    pub vocab_size: Dim,
    pub hidden_size: Dim,
    pub num_hidden_layers: Dim,
    pub num_heads: Dim,
    pub head_dim: Dim,
}

#[architecture("WrongForCausalLM")]
pub fn wrong(c: &SmallConfig, w: Weights, tokens: Tokens) -> Logits {
    let embedding = w.matrix("embed", c.vocab_size, c.hidden_size);
    let _unused = w.vector("unused", c.hidden_size);
    let mut x = gather(embedding, tokens);
    let outside = x * 2.0;
    for layer in w.layers("layers", c.num_hidden_layers) {
        let heads = x.heads(c.num_heads, c.head_dim);
        let h = rms_norm(x, layer.vector("norm", c.head_dim), 1e-5);
        let projected = linear(h, layer.matrix("proj", c.hidden_size, c.num_heads * c.head_dim));
        let other = linear(x, layer.matrix("proj", c.hidden_size, c.hidden_size));
        let attended = attention(heads, layer.cache(heads, x), Attention::causal());
        x += projected + outside * attended + other;
    }
    linear(x, w.matrix("head", c.vocab_size, c.vocab_size))
}

#[architecture("TwiceForCausalLM")]
pub fn cached_twice(c: &SmallConfig, w: Weights, tokens: Tokens) -> Logits {
    let embedding = w.matrix("embed", c.vocab_size, c.hidden_size);
    let mut x = gather(embedding, tokens);
    for layer in w.layers("layers", c.num_hidden_layers) {
        let width = c.num_heads * c.head_dim;
        let k = linear(x, layer.matrix("k", width, c.hidden_size)).heads(c.num_heads, c.head_dim);
        let v = linear(x, layer.matrix("v", width, c.hidden_size)).heads(c.num_heads, c.head_dim);
        let near = attention(k, layer.cache(k, v), Attention::causal().window(Some(4)));
        let far = attention(k, layer.cache(k, v), Attention::causal());
        let other = attention(k, layer.cache(v, k), Attention::causal());
        x += linear(near + far + other, layer.matrix("o", c.hidden_size, width));
    }
    linear(x, embedding)
}
