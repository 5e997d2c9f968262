//! The Numenta Anomaly Benchmark (Lavin and Ahmad, "Evaluating real-time anomaly
//! detection algorithms", ICMLA 2015; numenta/NAB 1.1): its files and its score.
//!
//! Every label is a window of time. Of the detections in a window the earliest
//! counts, the more the earlier it is; a window without any costs; so does every
//! detection outside of windows, less so shortly behind one. The first 15 % of a
//! file (of 5,000 points at most) only teach. One threshold serves all files, and
//! it is the best one: what is compared is how well scores rank. 100 is a perfect
//! detector, 0 one that says nothing.

mod load;
mod sweep;

pub use load::{load, load_scores};
pub use sweep::{Outcome, Profile, Sweep};

/// One labelled series.
#[derive(Clone, Debug, PartialEq)]
pub struct Labelled {
    /// Folder it comes from.
    pub category: String,
    /// Name of its file, without `.csv`.
    pub name: String,
    /// Seconds since 1970, as its clock shows them, one per point; may repeat
    /// or go back where the file's do.
    pub times: Vec<i64>,
    /// One per point.
    pub values: Vec<f64>,
    /// First and last point of each window, in order.
    pub windows: Vec<(usize, usize)>,
}

impl Labelled {
    /// How many points at the beginning are not scored.
    pub fn probation(&self) -> usize {
        probation(self.values.len())
    }
}

/// 15 % of the points, 750 at most.
pub fn probation(points: usize) -> usize {
    (points * 15 / 100).min(750)
}
