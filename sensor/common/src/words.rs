//! Short words of a fixed list, found without comparing with each.

/// Bytes of a word at most; what is longer is none of any list.
pub const WORD_LEN_MAX: usize = 16;
/// Places of a table: a power of two, more than twice as many as words.
const PLACES: usize = 512;
/// How far from its place a word may be.
const PROBES: usize = 8;

/// Bit that small letters have and capital ones do not.
const SMALL: u64 = 0x2020_2020_2020_2020;

/// A word without regard to case: its bytes, the first one most significant,
/// padded with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    head: u64,
    tail: u64,
}

impl Word {
    /// The first `len` of `bytes`; `None` if it is longer than they are, or empty.
    #[inline(always)]
    pub const fn new(bytes: [u8; WORD_LEN_MAX], len: usize) -> Option<Word> {
        if len == 0 || len > WORD_LEN_MAX {
            return None;
        }
        let all = u128::from_be_bytes(bytes);
        let (mut head, mut tail) = ((all >> 64) as u64 & !SMALL, all as u64 & !SMALL);
        if len <= 8 {
            head &= u64::MAX << (64 - 8 * len);
            tail = 0;
        } else {
            tail &= u64::MAX << (128 - 8 * len);
        }
        Some(Word { head, tail })
    }

    const fn of(text: &str) -> Word {
        let (from, mut bytes, mut at) = (text.as_bytes(), [0; WORD_LEN_MAX], 0);
        while at < from.len() {
            bytes[at] = from[at];
            at += 1;
        }
        match Word::new(bytes, from.len()) {
            Some(word) => word,
            None => panic!("a word is empty or too long"),
        }
    }

    #[inline(always)]
    const fn place(self) -> usize {
        let mixed = self.head.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.tail;
        (mixed.wrapping_mul(0xff51_afd7_ed55_8ccd) >> 48) as usize % PLACES
    }
}

/// Numbers by word.
#[derive(Debug)]
pub struct Words {
    heads: [u64; PLACES],
    tails: [u64; PLACES],
    numbers: [u16; PLACES],
}

impl Words {
    /// The words `names`, of up to [`WORD_LEN_MAX`] bytes; their numbers are 1, 2, …
    ///
    /// # Panics
    /// While compiling, if a name is too long or there are too many.
    pub const fn new(names: &[&str]) -> Words {
        let mut words = Words {
            heads: [0; PLACES],
            tails: [0; PLACES],
            numbers: [0; PLACES],
        };
        let mut name = 0;
        while name < names.len() {
            let word = Word::of(names[name]);
            let (mut place, mut probes) = (word.place(), 0);
            while words.numbers[place] != 0 {
                place = (place + 1) % PLACES;
                probes += 1;
                assert!(probes < PROBES);
            }
            words.heads[place] = word.head;
            words.tails[place] = word.tail;
            name += 1;
            words.numbers[place] = name as u16;
        }
        words
    }

    /// The number of a word, 0 if it is none of them.
    #[inline(always)]
    pub fn number(&self, word: Word) -> u16 {
        let place = word.place();
        for probe in 0..PROBES {
            let place = (place + probe) % PLACES;
            if self.tails[place] == word.tail && self.heads[place] == word.head {
                return self.numbers[place];
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static WORDS: Words = Words::new(&["GET", "SET", "SIXTEEN-LETTERS-"]);

    #[test]
    fn words_are_found_in_any_case() {
        for (text, number) in [
            ("GET", 1),
            ("sEt", 2),
            ("sixteen-letters-", 3),
            ("GETS", 0),
            ("GE", 0),
            ("sixteen-letters", 0),
        ] {
            assert_eq!(WORDS.number(Word::of(text)), number, "{text}");
        }
        assert_eq!(Word::new(*b"GET and the rest", 3), Some(Word::of("get")));
        assert_eq!(Word::new([0; 16], 0), None);
        assert_eq!(Word::new([0; 16], 17), None);
    }
}
