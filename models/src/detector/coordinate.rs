//! How coordinates of prototypes are stored.

use serde::{Deserialize, Serialize};

/// A stored number.
pub trait Coordinate: Copy + Default {
    /// Stores a finite number, as well as it can.
    fn encode(value: f32) -> Self;
    /// What was stored; finite.
    fn decode(self) -> f32;
}

impl Coordinate for f32 {
    #[inline]
    fn encode(value: f32) -> Self {
        value
    }

    #[inline]
    fn decode(self) -> f32 {
        self
    }
}

/// A number between −32 and 32 in steps of 1/1024: all of model space, a tenth of
/// a percent at a time, in half the memory of an `f32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fixed(i16);

impl Coordinate for Fixed {
    #[inline]
    fn encode(value: f32) -> Self {
        // The cast saturates, and NaN becomes 0.
        Fixed((value * 1024.0).round_ties_even() as i16)
    }

    #[inline]
    fn decode(self) -> f32 {
        f32::from(self.0) * (1.0 / 1024.0)
    }
}
