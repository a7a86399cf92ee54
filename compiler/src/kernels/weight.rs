//! Weight matrices in storage, read piece by piece and turned into f32. The layouts are those of [`WeightFormat`].

use kiln_bundle::Access;

use super::builder::{Array, Builder, F32, Pointer, U32, UVec4, Value, Vec4};
use super::names::lettered;
use crate::weights::{WeightFormat, padded};

/// A bound weight matrix, or some rows of one. Rows are read in *chunks*: what one thread takes at a time.
#[derive(Clone, Copy)]
pub struct Weight<'b> {
    b: &'b Builder,
    pub format: WeightFormat,
    words: Words<'b>,
    scales: Option<Array<'b, u32>>,
    /// The row of the scales that belongs to row 0.
    scale_row: u32,
    /// Elements in a chunk: a multiple of 4, and a divisor of the block.
    pub chunk: u32,
    row_chunks: U32<'b>,
    /// Scale blocks in a row.
    row_blocks: U32<'b>,
    /// Whether the scales of a row are whole words.
    rows_fill_words: bool,
}

/// The elements' binding, by the size of a chunk.
#[derive(Clone, Copy)]
enum Words<'b> {
    One(Array<'b, u32>),
    Two(Array<'b, [u32; 2]>),
    Four(Array<'b, [u32; 4]>),
    Floats(Array<'b, [f32; 4]>),
}

impl<'b> Words<'b> {
    fn bind(b: &'b Builder, name: &str, format: WeightFormat, words: u32) -> Self {
        match (format, words_of_chunk(format, words)) {
            (WeightFormat::F32, _) => Words::Floats(b.storage(name, Access::Read)),
            (_, 1) => Words::One(b.storage(name, Access::Read)),
            (_, 2) => Words::Two(b.storage(name, Access::Read)),
            _ => Words::Four(b.storage(name, Access::Read)),
        }
    }
}

/// Words of a chunk where `words` (1, 2 or 4) are wanted: no fewer than hold 4 elements.
fn words_of_chunk(format: WeightFormat, words: u32) -> u32 {
    match format {
        WeightFormat::F32 => 4,
        WeightFormat::F16 | WeightFormat::Bf16 => words.max(2),
        WeightFormat::Q8 { .. } | WeightFormat::Q4 { .. } | WeightFormat::Mxfp4 => words,
    }
}

/// A chunk as loaded, not yet unpacked.
pub struct Chunk<'b> {
    b: &'b Builder,
    format: WeightFormat,
    raw: Raw<'b>,
    /// The word with the chunk's scale, and where the scale lies in it (bits).
    scale: Option<(U32<'b>, U32<'b>)>,
}

#[derive(Clone, Copy)]
enum Raw<'b> {
    One(U32<'b>),
    Two(Value<'b, [u32; 2]>),
    Four(UVec4<'b>),
    Floats(Vec4<'b>),
}

/// A chunk in variables, for loops that load chunks before they use them.
pub struct KeptChunk<'b> {
    b: &'b Builder,
    format: WeightFormat,
    raw: KeptRaw<'b>,
    scale: Option<(Pointer<'b, u32>, Pointer<'b, u32>)>,
}

enum KeptRaw<'b> {
    One(Pointer<'b, u32>),
    Two(Pointer<'b, [u32; 2]>),
    Four(Pointer<'b, [u32; 4]>),
    Floats(Pointer<'b, [f32; 4]>),
}

impl<'b> Weight<'b> {
    /// Binds the weight: one binding or, with scales, two. A chunk is `words` (1, 2 or 4) words, or more where that
    /// would be less than 4 elements.
    pub fn bind(b: &'b Builder, format: WeightFormat, cols: u32, words: u32) -> Self {
        Self::bind_each(b, format, cols, words, 1)[0]
    }

    /// Binds `count` weights of the same columns, each as [`Self::bind`] does.
    pub fn bind_each(b: &'b Builder, format: WeightFormat, cols: u32, words: u32, count: u32) -> Vec<Self> {
        (0..count)
            .map(|index| {
                let name = |name: &str| match count {
                    1 => name.to_string(),
                    _ => lettered(name, index as usize),
                };
                let elements = Words::bind(b, &name("weight"), format, words);
                let scales = format.block().map(|_| b.storage(&name("scales"), Access::Read));
                Weight::new(b, format, cols, words, (elements, scales), 0)
            })
            .collect()
    }

    /// Binds a matrix whose elements lie in several bindings, each from the row named in `parts` on, the scales of all
    /// in one. Rows of each part are numbered from 0.
    pub fn bind_parts(b: &'b Builder, format: WeightFormat, cols: u32, words: u32, parts: &[u32]) -> Vec<Self> {
        let name = |part: usize| match parts.len() {
            1 => "weight".to_string(),
            _ => lettered("weight", part),
        };
        let elements: Vec<Words> = (0..parts.len())
            .map(|part| Words::bind(b, &name(part), format, words))
            .collect();
        let scales = format.block().map(|_| b.storage("scales", Access::Read));
        let parts = elements.into_iter().zip(parts);
        parts
            .map(|(elements, &scale_row)| Weight::new(b, format, cols, words, (elements, scales), scale_row))
            .collect()
    }

    /// Elements of a chunk of so many words, see [`Self::bind`].
    pub fn chunk_elements(format: WeightFormat, words: u32) -> u32 {
        format.elements_per_vec4() * words_of_chunk(format, words) / 4
    }

    fn new(
        b: &'b Builder,
        format: WeightFormat,
        cols: u32,
        words: u32,
        (elements, scales): (Words<'b>, Option<Array<'b, u32>>),
        scale_row: u32,
    ) -> Self {
        let row = padded(u64::from(cols)) as u32;
        let chunk = Self::chunk_elements(format, words);
        Weight {
            b,
            format,
            words: elements,
            scales,
            scale_row,
            chunk,
            row_chunks: b.constant("ROW_CHUNKS", row / chunk),
            row_blocks: match format.block() {
                Some(block) => b.constant("ROW_BLOCKS", row / block),
                None => b.literal(0),
            },
            rows_fill_words: format
                .block()
                .is_some_and(|block| (row / block * format.block_scale_bytes()).is_multiple_of(4)),
        }
    }

    /// Chunks that hold the first `cols` elements of a row.
    pub fn chunks(&self, cols: u32) -> u32 {
        cols.div_ceil(self.chunk)
    }

    /// Words of a chunk.
    pub fn chunk_words(&self) -> u32 {
        self.chunk * 4 / self.format.elements_per_vec4()
    }

    /// Loads chunk number `chunk` of `row`; `label` ends the names in the text.
    pub fn load(&self, row: U32<'b>, chunk: U32<'b>, label: &str) -> Chunk<'b> {
        let at = row * self.row_chunks + chunk;
        let packed = format!("packed{label}");
        let raw = match self.words {
            Words::One(array) => Raw::One(array.load(at).named(&packed)),
            Words::Two(array) => Raw::Two(array.load(at).named(&packed)),
            Words::Four(array) => Raw::Four(array.load(at).named(&packed)),
            Words::Floats(array) => Raw::Floats(array.load(at).named("weights")),
        };
        let scale = self.scales.map(|scales| self.load_scale(scales, row, chunk, label));
        Chunk {
            b: self.b,
            format: self.format,
            raw,
            scale,
        }
    }

    fn load_scale(&self, scales: Array<'b, u32>, row: U32<'b>, chunk: U32<'b>, label: &str) -> (U32<'b>, U32<'b>) {
        let block_chunks = self.format.block().expect("has scales") / self.chunk;
        let block = chunk / block_chunks;
        let number = ((row + self.scale_row) * self.row_blocks + block).named(&format!("block{label}"));
        let name = format!("scale_word{label}");
        // Where the scales of a row are whole words, a scale's place in its word does not depend on the row.
        let place = if self.rows_fill_words { block } else { number };
        match self.format.block_scale_bytes() {
            4 => (scales.load(number).named(&name), self.b.literal(0)),
            2 => (scales.load(number >> 1).named(&name), (place & 1) << 4),
            _ => (scales.load(number >> 2).named(&name), (place & 3) << 3),
        }
    }
}

impl<'b> Chunk<'b> {
    /// Puts the chunk into new variables; `label` ends their names in the text.
    pub fn keep(&self, label: &str) -> KeptChunk<'b> {
        let name = format!("kept{label}");
        KeptChunk {
            b: self.b,
            format: self.format,
            raw: match self.raw {
                Raw::One(word) => KeptRaw::One(self.b.variable(&name, word)),
                Raw::Two(pair) => KeptRaw::Two(self.b.variable(&name, pair)),
                Raw::Four(four) => KeptRaw::Four(self.b.variable(&name, four)),
                Raw::Floats(four) => KeptRaw::Floats(self.b.variable(&name, four)),
            },
            scale: self.scale.map(|(word, bits)| {
                let word = self.b.variable(&format!("kept_scale{label}"), word);
                (word, self.b.variable(&format!("kept_scale_bits{label}"), bits))
            }),
        }
    }

    /// `Σ w · x` over the chunk; `offset_sum` must be that of [`offset_sum`].
    pub fn dot(&self, x: &[Vec4<'b>], offset_sum: Option<F32<'b>>) -> F32<'b> {
        let terms = self.quants().into_iter().zip(x).map(|(q, &x)| q.dot(x));
        let dot = terms.reduce(|sum, term| sum + term).expect("a chunk has elements");
        match (self.scale_and_min(), offset_sum) {
            ((None, _), _) => dot,
            ((Some(scale), Some(min)), Some(sum)) => scale * dot + min * sum,
            ((Some(scale), None), Some(zeros)) => scale * (dot - zeros),
            ((Some(scale), _), None) => scale * dot,
        }
    }

    /// The weights of the chunk.
    pub fn values(&self) -> Vec<Vec4<'b>> {
        let quants = self.quants().into_iter();
        match (self.scale_and_min(), self.format) {
            ((None, _), _) => quants.collect(),
            ((Some(scale), Some(min)), _) => {
                let (scale, min) = (scale.named("scale"), self.b.splat::<[f32; 4]>(min).named("minimum"));
                quants.map(|q| q * scale + min).collect()
            }
            ((Some(scale), None), WeightFormat::Q4 { .. }) => {
                let scale = scale.named("scale");
                let zero = self.b.splat::<[f32; 4]>(Q4_ZERO);
                quants.map(|q| (q - zero) * scale).collect()
            }
            ((Some(scale), None), _) => {
                let scale = scale.named("scale");
                quants.map(|q| q * scale).collect()
            }
        }
    }

    /// The stored numbers as f32, before scale and minimum.
    fn quants(&self) -> Vec<Vec4<'b>> {
        let words: Vec<U32> = match self.raw {
            Raw::Floats(four) => return vec![four],
            Raw::One(word) => vec![word],
            Raw::Two(pair) => vec![pair.x(), pair.y()],
            Raw::Four(four) => (0..4).map(|word| four.component(word)).collect(),
        };
        match self.format {
            WeightFormat::F32 => unreachable!("f32 weights are bound as vec4<f32>"),
            WeightFormat::F16 => words
                .chunks(2)
                .map(|pair| self.b.join(pair[0].unpack2x16_float(), pair[1].unpack2x16_float()))
                .collect(),
            WeightFormat::Bf16 => words.chunks(2).map(|pair| self.bf16_quad(pair)).collect(),
            WeightFormat::Q8 { .. } => words.iter().map(|word| word.unpack4x_i8().cast()).collect(),
            WeightFormat::Q4 { .. } => words.iter().flat_map(|&word| self.nibbles(word)).collect(),
            WeightFormat::Mxfp4 => words.iter().flat_map(|&word| self.e2m1(word)).collect(),
        }
    }

    /// bfloat16 is the upper half of an f32.
    fn bf16_quad(&self, words: &[U32<'b>]) -> Vec4<'b> {
        let halves: Vec<F32> = words
            .iter()
            .flat_map(|&word| [word << 16, word & 0xffff_0000].map(|bits| bits.bitcast()))
            .collect();
        self.b.vector(&halves)
    }

    /// Elements 0 to 3 are the low nibbles of the word's bytes, 4 to 7 the high ones.
    fn nibbles(&self, word: U32<'b>) -> [Vec4<'b>; 2] {
        let low_nibbles = self.b.constant("LOW_NIBBLES", 0x0f0f_0f0f);
        [word & low_nibbles, (word >> 4) & low_nibbles].map(|bytes| bytes.unpack4x_u8().cast())
    }

    /// Doubled E2M1 values (0, 1, 2, 3, 4, 6, 8, 12 and their negatives), placed as [`Self::nibbles`]. Unpacking these
    /// is most of the work of a product with them, so all eight are made at once as long as they fit in nibbles.
    fn e2m1(&self, word: U32<'b>) -> [Vec4<'b>; 2] {
        let b = self.b;
        let ones = b.constant("NIBBLE_ONES", 0x1111_1111);
        let m = (word & b.constant("MAGNITUDE_BITS", 0x7777_7777)).named("magnitude_codes");
        // The number itself, plus its lower two bits where bit 2 is set, plus 2 for the last one, 7.
        let large = ((m >> 2) & ones).named("large");
        let doubled = (m + (m & (large * 3)) + ((large & (m >> 1) & m) << 1)).named("magnitudes");
        let low_nibbles = b.constant("LOW_NIBBLES", 0x0f0f_0f0f);
        let byte_ones = b.constant("BYTE_ONES", 0x0101_0101);
        let halves = [(doubled, word >> 3), (doubled >> 4, word >> 7)];
        halves.map(|(magnitudes, signs)| {
            // Two's complement; nothing carries into the next byte, because there is no minus zero.
            let negative = (signs & byte_ones).named("negative");
            let signed = ((magnitudes & low_nibbles) ^ (negative * 0xff)) + negative;
            signed.unpack4x_i8().cast()
        })
    }

    fn scale_and_min(&self) -> (Option<F32<'b>>, Option<F32<'b>>) {
        let Some((word, bits)) = self.scale else {
            return (None, None);
        };
        if self.format == (WeightFormat::Q4 { min: true }) {
            let pair: Value<'b, [f32; 2]> = word.unpack2x16_float().named("scale_and_min");
            return (Some(pair.x()), Some(pair.y()));
        }
        if self.format == WeightFormat::Mxfp4 {
            // The exponent of an f32, and half of it, as the numbers are doubled.
            let exponent = ((word >> bits) & 0xff) << 23;
            return (Some(exponent.bitcast::<f32>() * 0.5), None);
        }
        (Some((word >> bits).unpack2x16_float().x()), None)
    }
}

impl<'b> KeptChunk<'b> {
    /// The chunk that the variables hold now.
    pub fn load(&self) -> Chunk<'b> {
        Chunk {
            b: self.b,
            format: self.format,
            raw: match self.raw {
                KeptRaw::One(word) => Raw::One(word.load()),
                KeptRaw::Two(pair) => Raw::Two(pair.load()),
                KeptRaw::Four(four) => Raw::Four(four.load()),
                KeptRaw::Floats(four) => Raw::Floats(four.load()),
            },
            scale: self.scale.map(|(word, bits)| (word.load(), bits.load())),
        }
    }

    /// Sets the variables to another chunk of the same weight.
    pub fn store(&self, chunk: &Chunk<'b>) {
        match (&self.raw, chunk.raw) {
            (KeptRaw::One(place), Raw::One(word)) => place.store(word),
            (KeptRaw::Two(place), Raw::Two(pair)) => place.store(pair),
            (KeptRaw::Four(place), Raw::Four(four)) => place.store(four),
            (KeptRaw::Floats(place), Raw::Floats(four)) => place.store(four),
            _ => unreachable!("chunks of one weight have one size"),
        }
        if let (Some((word_place, bits_place)), Some((word, bits))) = (self.scale, chunk.scale) {
            word_place.store(word);
            bits_place.store(bits);
        }
    }
}

/// The stored number that means zero in `Q4` without a minimum.
const Q4_ZERO: f32 = 8.0;

/// What a chunk's dot product with `x` needs beside it in formats whose numbers have an offset, the same for every
/// row: the sum of `x`, times the offset where it is fixed.
pub fn offset_sum<'b>(format: WeightFormat, x: &[Vec4<'b>]) -> Option<F32<'b>> {
    let b = x.first()?.builder();
    match format {
        WeightFormat::Q4 { min: true } => Some(b.sum_of_components(x).named("sum_x")),
        WeightFormat::Q4 { min: false } => Some((b.sum_of_components(x) * Q4_ZERO).named("zero_sum")),
        _ => None,
    }
}
