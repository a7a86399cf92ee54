//! What strangers wrote may be wrong in every way: no panic, no run-away time or memory. Each door takes its seeds
//! whole and damaged, the same ones in every run; `KILN_HOSTILE_ROUNDS` asks for more than the usual number.

use std::alloc::{GlobalAlloc, Layout, System};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use kiln_codegen_tests::Random;
use kiln_codegen_tests::hostile::{damaged, door};

/// Damaged inputs for each door.
const ROUNDS: usize = 400;
/// Bytes that one small input may make the program hold at a time.
const MOST_MEMORY: usize = 512 << 20;
/// Time for one input, on a busy machine and without optimization.
const MOST_TIME: Duration = Duration::from_secs(20);

/// The system's allocator, counting.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(held, Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Counts are the whole program's, so doors are walked through one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Bytes and time that `enter` took, or the name of what it did wrong.
fn watch(enter: impl FnOnce()) -> Result<(), String> {
    let before = HELD.load(Relaxed);
    PEAK.store(before, Relaxed);
    let started = Instant::now();
    catch_unwind(AssertUnwindSafe(enter)).map_err(|_| "a panic".to_string())?;
    let (took, held) = (started.elapsed(), PEAK.load(Relaxed).saturating_sub(before));
    if held > MOST_MEMORY {
        return Err(format!("{} MiB of memory", held >> 20));
    }
    if took > MOST_TIME {
        return Err(format!("{took:?}"));
    }
    Ok(())
}

fn walk_through(name: &str) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let door = door(name);
    let seeds = (door.seeds)();
    let rounds = std::env::var("KILN_HOSTILE_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().expect("a number"));
    let mut random = Random(1);
    let damages = (0..rounds).map(|round| damaged(&seeds[round % seeds.len()], &mut random));
    let mut faults = Vec::new();
    for input in seeds.iter().cloned().chain(damages) {
        if let Err(what) = watch(|| (door.enter)(&input)) {
            let file = std::env::temp_dir().join(format!("kiln-hostile-{name}-{}", faults.len()));
            std::fs::write(&file, &input).expect("a temporary file");
            faults.push(format!("{what}: {}", file.display()));
        }
    }
    assert!(faults.is_empty(), "{name}:\n{}", faults.join("\n"));
}

#[test]
fn gguf() {
    walk_through("gguf");
}

#[test]
fn safetensors() {
    walk_through("safetensors");
}

#[test]
fn config() {
    walk_through("config");
}

#[test]
fn tokenizer() {
    walk_through("tokenizer");
}

#[test]
fn template() {
    walk_through("template");
}

#[test]
fn manifest() {
    walk_through("manifest");
}

#[test]
fn session() {
    walk_through("session");
}

#[test]
fn what_is_wrong_is_seen() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    assert!(watch(|| ()).is_ok());
    assert_eq!(watch(|| panic!("on purpose")), Err("a panic".to_string()));
    let greedy = watch(|| drop(std::hint::black_box(vec![1u8; MOST_MEMORY + (1 << 20)])));
    assert!(greedy.unwrap_err().ends_with("MiB of memory"));
}
