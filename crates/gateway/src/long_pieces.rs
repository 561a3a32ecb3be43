//! Byte-pair encoding of a long piece of text, in time that grows with its length and no faster: a megabyte of spaces must
//! not cost a second.
//!
//! Pure. Tokens are taken from the left, the longest one first, and taken back where they would not have come out of the
//! merges (van Antwerpen and Neubeck, "So many tokens, so little time", 2024). That is so if each pair of neighbours, on
//! its own, becomes these two tokens; what was found to lead nowhere is not tried again.

use crate::vocabulary::Vocabulary;

/// The tokens up to a place in the piece.
struct Taken<'a> {
    vocabulary: &'a Vocabulary,
    piece: &'a [u8],
    tokens: Vec<u32>,
    /// Where the last of them ends.
    end: usize,
    /// Places that no tokens of the whole piece end at.
    dead: Vec<bool>,
}

pub(crate) fn count(vocabulary: &Vocabulary, piece: &[u8]) -> u64 {
    let mut taken =
        Taken { vocabulary, piece, tokens: Vec::new(), end: 0, dead: vec![false; piece.len() + 1] };
    // Every piece has tokens, so that this never falls back: one a byte bounds them.
    taken.all().map_or(piece.len() as u64, |()| taken.tokens.len() as u64)
}

impl Taken<'_> {
    fn all(&mut self) -> Option<()> {
        while self.end < self.piece.len() {
            let mut next = self.vocabulary.longest_prefix(self.piece.get(self.end..)?)?;
            while !self.take(next) {
                next = match self.shorter(next) {
                    Some(shorter) => shorter,
                    None => self.take_back()?,
                };
            }
        }
        Some(())
    }

    fn length(&self, token: u32) -> usize {
        self.vocabulary.token(token).map_or(0, <[u8]>::len)
    }

    fn take(&mut self, token: u32) -> bool {
        let end = self.end + self.length(token);
        let fits = self.dead.get(end) == Some(&false)
            && self.tokens.last().is_none_or(|last| self.stay_apart(*last, token));
        if fits {
            self.tokens.push(token);
            self.end = end;
        }
        fits
    }

    /// The longest token that this one begins with.
    fn shorter(&self, token: u32) -> Option<u32> {
        let bytes = self.vocabulary.token(token)?;
        self.vocabulary.longest_prefix(bytes.get(..bytes.len() - 1)?)
    }

    /// The last one, which nothing can follow: a shorter one is to be tried in its place.
    fn take_back(&mut self) -> Option<u32> {
        *self.dead.get_mut(self.end)? = true;
        let last = self.tokens.pop()?;
        self.end -= self.length(last);
        Some(last)
    }

    /// Whether nothing is merged across their border. Their own merges are undone, the latest first: at no time would the
    /// two that then meet at the border have been merged instead.
    fn stay_apart(&self, mut left: u32, mut right: u32) -> bool {
        let mut before = u32::MAX;
        loop {
            if self.union(left, right).is_some_and(|union| union < before) {
                return false;
            }
            let (of_left, of_right) = (self.vocabulary.split(left), self.vocabulary.split(right));
            // Of equal ranks the left one was merged first.
            (left, right, before) = match (of_left, of_right) {
                (Some((_, inner)), _) if left > right || of_right.is_none() => (inner, right, left),
                (_, Some((inner, _))) => (left, inner, right + 1),
                (_, None) => return true,
            };
        }
    }

    /// The token that the two are merged to, where they meet at the end of what is taken.
    fn union(&self, left: u32, right: u32) -> Option<u32> {
        let (start, end) = (self.end.checked_sub(self.length(left))?, self.end + self.length(right));
        let union = self.vocabulary.rank(self.piece.get(start..end)?)?;
        (self.vocabulary.split(union) == Some((left, right))).then_some(union)
    }
}
