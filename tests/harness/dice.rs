//! Chance that is the same again: a run is repeated by its seed.

/// splitmix64: small, and the same everywhere. It holds the seed.
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// A number below `sides`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    /// As [`Self::roll`], of 32 bits.
    pub fn below(&mut self, sides: u32) -> u32 {
        u32::try_from(self.roll(sides.into())).expect("below 32 bits")
    }

    /// One of these. Panics where there is none.
    #[track_caller]
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.roll(from.len() as u64)).expect("an index")]
    }

    /// Whether it is one of so many of a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.roll(100) < percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_and_all_sides_come_up() {
        let [mut one, mut other] = [Dice(7), Dice(7)];
        let mut seen = [false; 6];
        for _ in 0..200 {
            let side = one.roll(6);
            assert_eq!(side, other.roll(6));
            seen[usize::try_from(side).unwrap()] = true;
        }
        assert_eq!(seen, [true; 6]);
    }
}
