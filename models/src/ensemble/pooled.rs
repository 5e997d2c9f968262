//! What the residuals of similar series say of one that has seen too little.

use serde::{Deserialize, Serialize};

use super::lead::Lead;
use crate::conformal::PooledLaw;

/// What is believed of one lead of one quantity, instead of what would be believed of
/// anything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PooledLead {
    law: Option<PooledLaw>,
    /// Mean absolute residual, in usual changes from value to value.
    size: Option<f32>,
}

impl PooledLead {
    /// Of the same lead of several series, each with its usual change.
    pub(crate) fn of<'a>(leads: impl Iterator<Item = (&'a Lead, f64)> + Clone) -> PooledLead {
        let sizes = leads.clone().filter_map(|(lead, unit)| {
            let size = lead.seen_size()? / unit;
            (size > 0.0).then_some(size)
        });
        let (sum, count) = sizes.fold((0.0, 0.0), |(sum, count), size| (sum + size, count + 1.0));
        PooledLead {
            law: PooledLaw::of(leads.map(|(lead, _)| lead.law())),
            size: (count > 0.0).then(|| (sum / count) as f32),
        }
    }

    pub(super) fn law(&self) -> Option<&PooledLaw> {
        self.law.as_ref()
    }

    pub(super) fn size(&self) -> Option<f64> {
        self.size.map(f64::from)
    }
}
