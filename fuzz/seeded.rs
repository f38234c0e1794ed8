//! Fuzzing without a guide, on a stable compiler: mutations of valid messages
//! and of the corpus, the same ones in every run, for a second each body or for
//! `ADIT_FUZZ_SECONDS`. Shared by the `fuzz_seeded` tests of three crates.
//!
//! A failure names the body, the seed and the input, and leaves the input in a
//! file.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// One body and what it is fed.
pub struct Fuzz {
    /// The body's name, and its folder in `corpus/`.
    pub name: &'static str,
    /// Where the random numbers begin.
    pub seed: u64,
    /// Valid messages.
    pub messages: Vec<Vec<u8>>,
    /// The longest input.
    pub longest: usize,
    /// At least so many inputs, however slow the machine is.
    pub least: u64,
}

/// What an input may take at most, on the slowest machine: everything else is
/// a hang.
const PATIENCE: Duration = Duration::from_secs(20);

impl Fuzz {
    /// With the limits that fit a message on the wire: longer than every limit,
    /// but not so long that a round takes long.
    #[allow(dead_code, reason = "not every test has messages")]
    pub fn wire(name: &'static str, seed: u64, messages: Vec<Vec<u8>>) -> Self {
        Self {
            name,
            seed,
            messages,
            longest: 12 * 1024,
            least: 2000,
        }
    }

    /// Feeds the corpus as it is, then mutations.
    pub fn run(self, body: fn(&[u8])) {
        let seconds = std::env::var("ADIT_FUZZ_SECONDS").ok();
        let seconds = seconds.map_or(1, |text| {
            text.parse().expect("ADIT_FUZZ_SECONDS is a number")
        });
        let until = Instant::now() + Duration::from_secs(seconds);
        let words = words(self.name);
        let mut corpus = self.messages.clone();
        corpus.extend(corpus_files(self.name));
        corpus.iter().for_each(|input| self.check(body, input));
        let mut random = Random(self.seed);
        let mut rounds = 0u64;
        while rounds < self.least || Instant::now() < until {
            let mut input = corpus[random.below(corpus.len())].clone();
            mutate(&mut input, &mut random, &corpus, &words, self.longest);
            self.check(body, &input);
            rounds += 1;
        }
        println!(
            "{}: {} of the corpus, {rounds} mutations",
            self.name,
            corpus.len()
        );
    }

    fn check(&self, body: fn(&[u8]), input: &[u8]) {
        let started = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| body(input)));
        let took = started.elapsed();
        if outcome.is_ok() && took < PATIENCE {
            return;
        }
        let file = std::env::temp_dir().join(format!("adit-fuzz-{}.input", self.name));
        let kept = fs::write(&file, input).map(|()| file.display().to_string());
        eprintln!(
            "{}, seed {:#x}: {} bytes after {took:?}, kept in {kept:?}; once it is understood, \
             it belongs in fuzz/corpus/{}: {:?}",
            self.name,
            self.seed,
            input.len(),
            self.name,
            String::from_utf8_lossy(&input[..input.len().min(2000)])
        );
        match outcome {
            Err(panic) => resume_unwind(panic),
            Ok(()) => panic!("one input took {took:?}"),
        }
    }
}

/// `fuzz/`, from whichever crate this is compiled in.
fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// What guided fuzzing has found worth keeping, in the order of the names.
fn corpus_files(name: &str) -> Vec<Vec<u8>> {
    let folder = home().join("corpus").join(name);
    let list = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<_> = list
        .map(|entry| entry.expect("the folder is readable").path())
        .collect();
    files.sort();
    files
        .iter()
        .map(|file| fs::read(file).expect("the file is readable"))
        .collect()
}

/// The words of `dictionaries/<name>.dict`, which libFuzzer reads too: a line is
/// a comment or `"word"`, with `\\`, `\"` and `\xAB`.
fn words(name: &str) -> Vec<Vec<u8>> {
    let path = home().join(format!("dictionaries/{name}.dict"));
    let Ok(text) = fs::read_to_string(&path) else {
        return Vec::new();
    };
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| line.starts_with('"'))
        .map(|line| {
            let inside = line.trim_matches('"').as_bytes();
            let mut word = Vec::new();
            let mut at = 0;
            while at < inside.len() {
                let (byte, step) = match &inside[at..] {
                    [b'\\', b'x', high, low, ..] => {
                        let digits = [*high, *low];
                        let digits = str::from_utf8(&digits).expect("two digits");
                        (u8::from_str_radix(digits, 16).expect("two digits"), 4)
                    }
                    [b'\\', byte, ..] => (*byte, 2),
                    rest => (rest[0], 1),
                };
                word.push(byte);
                at += step;
            }
            word
        })
        .collect()
}

/// xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift
/// generators, scrambled"): enough to choose mutations by.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// Any byte.
    pub fn byte(&mut self) -> u8 {
        (self.next() >> 32) as u8
    }
}

/// Bytes that mean something to one of the parsers.
const TELLING: [u8; 12] = [
    0, 1, 0x7f, 0x80, 0xff, b'\r', b'\n', b' ', b':', b'.', 0xe0, 0xe1,
];

/// One to eight edits of the kinds that parsers trip over.
fn mutate(
    input: &mut Vec<u8>,
    random: &mut Random,
    corpus: &[Vec<u8>],
    words: &[Vec<u8>],
    longest: usize,
) {
    for _ in 0..=random.below(8) {
        let at = random.below(input.len() + 1);
        match random.below(11) {
            0 => input.truncate(at),
            1 => input.insert(at, random.byte()),
            2 => input.insert(at, TELLING[random.below(TELLING.len())]),
            3 if at < input.len() => drop(input.remove(at)),
            4 if at < input.len() => input[at] ^= 1 << random.below(8),
            5 if at < input.len() => input[at] = TELLING[random.below(TELLING.len())],
            6 => {
                // A piece of another message in the middle of this one.
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len());
                let piece = other[from..from + random.below(other.len() - from)].to_vec();
                input.splice(at..at, piece);
            }
            7 => {
                // A piece of itself again: repeated fields, long lists.
                let end = (at + random.below(64)).min(input.len());
                let piece = input[at..end].to_vec();
                for _ in 0..random.below(40) {
                    input.splice(at..at, piece.iter().copied());
                }
            }
            8 | 9 if !words.is_empty() => {
                // A word in the place of what stands there, up to its end.
                let word = &words[random.below(words.len())];
                let is_word = |b: &u8| b.is_ascii_alphanumeric();
                let old = input[at..].iter().take_while(|b| is_word(b)).count();
                input.splice(at..at + old, word.iter().copied());
            }
            _ => {
                let noise = random.below(200);
                input.extend((0..noise).map(|_| random.byte()));
            }
        }
        input.truncate(longest);
    }
}
