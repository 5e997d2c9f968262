//! The code that HPACK writes strings in (RFC 7541, 5.2 and appendix B).

/// Bits of the code of each byte. Codes of one length follow each other in the
/// order of their bytes, so that the lengths say all.
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/// Longest code.
const LENGTH_MAX: u8 = 30;

const fn codes() -> [u32; 256] {
    let (mut codes, mut code, mut length) = ([0; 256], 0, 1);
    while length <= LENGTH_MAX {
        code <<= 1;
        let mut byte = 0;
        while byte < 256 {
            if LENGTHS[byte] == length {
                codes[byte] = code;
                code += 1;
            }
            byte += 1;
        }
        length += 1;
    }
    codes
}

const CODES: [u32; 256] = codes();

/// Nodes of the tree of all codes; the one of what ends a string is among them.
const NODES: usize = 257;
const LEAF: u16 = 1 << 15;

const fn tree() -> [[u16; 2]; NODES] {
    let mut tree = [[0; 2]; NODES];
    let (mut nodes, mut byte) = (1, 0);
    while byte < 256 {
        let (mut node, mut bit) = (0, LENGTHS[byte]);
        while bit > 1 {
            bit -= 1;
            let side = (CODES[byte] >> bit & 1) as usize;
            if tree[node][side] == 0 {
                tree[node][side] = nodes;
                nodes += 1;
            }
            node = tree[node][side] as usize;
        }
        tree[node][(CODES[byte] & 1) as usize] = LEAF | byte as u16;
        byte += 1;
    }
    tree
}

/// What four bits do at a node: the next node, and the byte that ended.
type Step = u32;
const ENDED: Step = 1 << 24;
const INVALID: Step = 1 << 25;

const fn steps() -> [[Step; 16]; 256] {
    let (tree, mut steps, mut from) = (tree(), [[0; 16]; 256], 0);
    while from < 256 {
        let mut four = 0;
        while four < 16 {
            let (mut node, mut step, mut bit) = (from, 0, 4);
            while bit > 0 {
                bit -= 1;
                let next = tree[node][four >> bit & 1];
                if next & LEAF != 0 {
                    step |= ENDED | (next as u32 & 0xff) << 8;
                    node = 0;
                } else if next == 0 {
                    step = INVALID;
                    node = 0;
                } else {
                    node = next as usize;
                }
            }
            steps[from][four] = step | node as u32 & 0xff;
            four += 1;
        }
        from += 1;
    }
    steps
}

static STEPS: [[Step; 16]; 256] = steps();

/// Where decoding is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Node(u32);

/// No string has such a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid;

impl Node {
    /// Before a string.
    pub const NEW: Node = Node(0);

    /// Reads four bits: the byte that ended with them, if one did.
    ///
    /// # Errors
    /// [`Invalid`].
    #[inline(always)]
    pub fn step(&mut self, four: u8) -> Result<Option<u8>, Invalid> {
        let step = STEPS[(self.0 & 0xff) as usize][usize::from(four & 15)];
        self.0 = step & 0xff;
        if step & INVALID != 0 {
            return Err(Invalid);
        }
        Ok((step & ENDED != 0).then_some((step >> 8) as u8))
    }
}

/// The first eight bytes of `text` as it is written, the first one most
/// significant, padded as it would be; and the length of all of it.
pub const fn encoded(text: &[u8]) -> (u64, usize) {
    let (mut all, mut bits, mut at) = (0u128, 0, 0);
    while at < text.len() {
        let length = LENGTHS[text[at] as usize] as u32;
        all |= (CODES[text[at] as usize] as u128) << (128 - bits - length);
        bits += length;
        at += 1;
    }
    // Ones follow up to the end of the byte.
    let len = bits.div_ceil(8);
    if bits < 8 * len {
        all |= (u128::MAX >> bits) & (u128::MAX << (128 - 8 * len));
    }
    ((all >> 64) as u64, len as usize)
}

/// Bytes of `text` behind the first eight, as [`encoded`].
pub const fn encoded_tail(text: &[u8]) -> u64 {
    let (mut all, mut bits, mut at) = (0u128, 0, 0);
    while at < text.len() {
        let length = LENGTHS[text[at] as usize] as u32;
        all |= (CODES[text[at] as usize] as u128) << (128 - bits - length);
        bits += length;
        at += 1;
    }
    all as u64
}

#[cfg(test)]
mod tests {
    use std::{string::String, vec::Vec};

    use super::*;

    fn decode(bytes: &[u8]) -> Result<String, Invalid> {
        let (mut node, mut text) = (Node::default(), Vec::new());
        for byte in bytes {
            for four in [byte >> 4, byte & 15] {
                text.extend(node.step(four)?);
            }
        }
        Ok(String::from_utf8(text).unwrap())
    }

    #[test]
    fn strings_of_the_rfc_are_read() {
        let of_c41 = [
            0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
        ];
        assert_eq!(decode(&of_c41).unwrap(), "www.example.com");
        let of_c61 = [0xae, 0xc3, 0x77, 0x1a, 0x4b];
        assert_eq!(decode(&of_c61).unwrap(), "private");
        assert_eq!(decode(&[0x64, 0x02]).unwrap(), "302");
        assert_eq!(decode(&[0xff; 4]), Err(Invalid));
    }

    #[test]
    fn what_is_encoded_is_read() {
        for text in ["PUT", "DELETE", "OPTIONS", "grpc-status", "200"] {
            let (head, len) = encoded(text.as_bytes());
            assert!(len <= 8);
            assert_eq!(decode(&head.to_be_bytes()[..len]).unwrap(), text);
        }
    }
}
