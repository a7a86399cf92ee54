//! Assignments sorted by expert, and the routings that put this to the test.

use kiln_codegen_tests::Data;
use kiln_compiler::kernels::{GroupSpec, KernelSpec};

use crate::support::{Random, run_each, step};

/// The experts of each token, `k` different ones, and their weights.
#[derive(Clone)]
pub struct Routing {
    pub k: usize,
    pub choices: Vec<(u32, f32)>,
}

impl Routing {
    /// `k` of `experts` for each token.
    pub fn random(tokens: usize, k: usize, experts: u32, random: &mut Random) -> Self {
        Self::by(tokens, k, random, |random| random.below(experts as usize) as u32)
    }

    /// Every token goes to experts `first .. first + k`.
    pub fn all_to(first: u32, tokens: usize, k: usize, random: &mut Random) -> Self {
        let mut next = 0;
        Self::by(tokens, k, random, |_| {
            next += 1;
            first + (next - 1) % k as u32
        })
    }

    /// Asks `choose` until a token has `k` different experts.
    fn by(tokens: usize, k: usize, random: &mut Random, mut choose: impl FnMut(&mut Random) -> u32) -> Self {
        let mut choices: Vec<(u32, f32)> = Vec::new();
        for _ in 0..tokens {
            let first = choices.len();
            while choices.len() < first + k {
                let expert = choose(random);
                if choices[first..].iter().all(|&(chosen, _)| chosen != expert) {
                    choices.push((expert, random.number()));
                }
            }
        }
        Routing { k, choices }
    }

    pub fn tokens(&self) -> usize {
        self.choices.len() / self.k
    }

    pub fn data(&self) -> Data {
        let words = |&(expert, weight): &(u32, f32)| [expert, weight.to_bits()];
        (&self.choices.iter().flat_map(words).collect::<Vec<u32>>()).into()
    }

    /// The assignments by expert; those of one expert in their own order.
    pub fn order(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.choices.len() as u32).collect();
        order.sort_by_key(|&assignment| self.choices[assignment as usize].0);
        order
    }

    /// What `GroupSpec` says that groups hold; `unset` where it says nothing.
    pub fn groups(&self, spec: &GroupSpec, unset: u32) -> Vec<u32> {
        let mut tiles: Vec<u32> = Vec::new();
        let mut place = 0;
        for expert in 0..spec.experts {
            let count = self.choices.iter().filter(|choice| choice.0 == expert).count() as u32;
            for done in (0..count).step_by(spec.tile as usize) {
                tiles.extend([expert, place + done, spec.tile.min(count - done)]);
            }
            place += count;
        }
        let mut words = vec![unset; spec.words() as usize];
        words[0] = tiles.len() as u32 / 3;
        words[1..=tiles.len()].copy_from_slice(&tiles);
        words[spec.order_at() as usize..][..self.choices.len()].copy_from_slice(&self.order());
        words
    }
}

/// Sorts `routing` in a buffer that is not empty, and wants every word as documented and no other touched.
fn case(spec: GroupSpec, routing: &Routing) {
    let unset = 0xdead_beef;
    let tokens = routing.tokens() as u32;
    let before = vec![unset; spec.words() as usize];
    let buffers = [routing.data(), step(tokens, 0), (&before).into()];
    let expected = routing.groups(&spec, unset);
    assert!(expected[0] <= spec.tiles_bound());
    run_each(
        &KernelSpec::Group(spec.clone()),
        &buffers,
        tokens,
        |kernel, variant, found: Vec<u32>| {
            let wrong = found
                .iter()
                .zip(&expected)
                .position(|(found, expected)| found != expected);
            assert_eq!(found.len(), expected.len());
            if let Some(word) = wrong {
                panic!(
                    "{} {variant:?}, {tokens} tokens: word {word} is {}, expected {}\n{}",
                    kernel.name, found[word], expected[word], kernel.wgsl
                );
            }
        },
    );
}

fn spec(experts: u32, k: u32, tokens: u32, tile: u32) -> GroupSpec {
    GroupSpec {
        experts,
        k,
        tokens,
        tile,
    }
}

#[test]
fn group_sorts_random_routings() {
    let mut random = Random(1);
    for (experts, k, most) in [(32, 4, 512), (128, 8, 300), (5, 2, 70), (300, 3, 129), (512, 32, 100)] {
        for tokens in [1, 3, most / 2, most] {
            let routing = Routing::random(tokens as usize, k as usize, experts, &mut random);
            for tile in [16, 32, 64] {
                case(spec(experts, k, most, tile), &routing);
            }
        }
    }
}

#[test]
fn group_sorts_the_largest_step() {
    let mut random = Random(2);
    case(spec(512, 32, 4096, 16), &Routing::random(4096, 32, 512, &mut random));
    case(spec(33, 32, 4096, 64), &Routing::random(4096, 32, 33, &mut random));
}

#[test]
fn group_sorts_lopsided_routings() {
    let mut random = Random(3);
    for tokens in [1, 31, 32, 33, 255, 256, 257, 600] {
        // All to one expert, the first or the last; all to all.
        case(spec(7, 1, 600, 16), &Routing::all_to(0, tokens, 1, &mut random));
        case(spec(7, 1, 600, 32), &Routing::all_to(6, tokens, 1, &mut random));
        case(spec(4, 4, 600, 64), &Routing::all_to(0, tokens, 4, &mut random));
        case(spec(1, 1, 600, 16), &Routing::all_to(0, tokens, 1, &mut random));
        case(spec(512, 2, 600, 16), &Routing::all_to(255, tokens, 2, &mut random));
    }
}
