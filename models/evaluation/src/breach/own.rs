//! Series of one's own, with thresholds that are given or read from their first third.

use serde_json::json;

use super::{
    HORIZON_SECS, MODELS, diagram, judge_all, number,
    reliability::{Judged, Tally},
    series::{Above, OwnSubject, Subject, of_own},
    tell, tell_reliability, together,
};
use crate::{
    own::{self, Own},
    report::{Outcome, row},
};

/// Parts of a series that intervals are drawn from.
const BLOCKS: usize = 20;

/// Evaluates probabilities of breaches in series of one's own beside baselines.
pub fn evaluate(all: &[Own], above: &[Above], progress: impl FnMut(&str)) -> Outcome {
    let mut outcome = Outcome::default();
    outcome.line("## Your series: a breach within 15 minutes\n");
    own::tell(&mut outcome, all);
    let (subjects, left_out) = of_own(all, above);
    let refs: Vec<&Subject> = subjects.iter().map(|own| &own.subject).collect();
    let judged = judge_all(&refs, progress);
    if subjects.is_empty() {
        outcome.line("Nothing can be judged:\n");
    } else {
        tell_subjects(&mut outcome, &subjects, &judged);
        let tallies: Vec<Vec<Vec<Tally>>> = judged.iter().map(|of| blocks(of)).collect();
        let subjects: Vec<Subject> = subjects.into_iter().map(|own| own.subject).collect();
        let all = together(&subjects, judged);
        tell(&mut outcome, &all, &tallies);
        outcome.line(format!(
            "\nThe first third of a series only teaches. Steps above the threshold, and those of \
             which it is not known what came, are left out. In brackets 95 % bootstrap over \
             {BLOCKS} parts of each series."
        ));
        tell_reliability(&mut outcome, &all);
        all[0].times.tell(&mut outcome, HORIZON_SECS.into());
        let ours = all[0].reliability();
        outcome.metric("own_ece_15m", ours.ece);
        outcome.metric("own_brier_15m_skill", 1.0 - ours.brier / ours.brier_base);
        outcome.details = json!({"own_reliability": ours.bins});
        let title = "Your series: probability of a breach within 15 minutes";
        let svg = diagram(title, &all).svg();
        outcome
            .plots
            .push(("breach-own-reliability".to_owned(), svg));
    }
    for reason in &left_out {
        outcome.line(format!("- {reason}"));
    }
    outcome.line("");
    outcome
}

/// Parts of what was said, each by model.
fn blocks(judged: &[Judged]) -> Vec<Vec<Tally>> {
    let tallies: Vec<Vec<Tally>> = judged.iter().map(|judged| judged.tallies(BLOCKS)).collect();
    (0..BLOCKS)
        .map(|block| (0..MODELS).map(|model| tallies[model][block]).collect())
        .collect()
}

fn tell_subjects(outcome: &mut Outcome, subjects: &[OwnSubject], judged: &[Vec<Judged>]) {
    outcome.line("| series | threshold | from | steps judged | breaches within | ECE | skill |");
    outcome.line("|---|---|---|---|---|---|---|");
    for (own, judged) in subjects.iter().zip(judged) {
        let reliability = judged[0].reliability();
        outcome.line(row([
            own.name.clone(),
            format!("{}", own.subject.threshold),
            own.from.clone(),
            judged[0].steps().to_string(),
            number(reliability.base_rate, 4),
            number(reliability.ece, 4),
            number(1.0 - reliability.brier / reliability.brier_base, 3),
        ]));
    }
    outcome.line("");
}
