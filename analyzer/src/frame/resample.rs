//! History of shorter steps, made into that of longer ones.

use honeyguide_models::Target;
use polars::prelude::*;

/// Windows of `ratio` steps each become one, by service and signal: the means of what
/// was observed of each target, in model space (so latencies are geometric means, and
/// rates those of windows with events), the mean completeness, and all samples. The
/// columns are those of a segment, without order.
pub(super) fn resample(frame: DataFrame, ratio: u64) -> PolarsResult<DataFrame> {
    let observed = |target: Target| col(target.name()).fill_nan(lit(NULL)).mean();
    let mut columns: Vec<Expr> = Target::ALL.map(observed).into();
    columns.push(col("samples").sum());
    columns.push(col("completeness").mean());
    let begin = col("step") - col("step") % lit(ratio);
    let step = (begin / lit(ratio)).cast(DataType::UInt64);
    frame
        .lazy()
        .with_column(step.alias("step"))
        .group_by_stable([col("service"), col("signal"), col("step")])
        .agg(columns)
        .collect()
}
