//! Series of a kind lend their experience to those that have none.
//!
//! Until a series has residuals of its own, its intervals rest on what is believed of
//! any series: residuals that are Student's, growing with the fourth root of the time
//! ahead. Other series of its kind know better. [`Groups::fit`] clusters those that
//! have a history by how slow, how busy and how restless they are (k-means, by
//! linfa-clustering), and pools in each group how residuals are distributed, by target
//! and horizon, how they grow with the horizon, and how much a window usually differs
//! from the one before. A young series is believed to be like the group nearest to what
//! was seen of it, and what it sees itself replaces that, residual by residual.

use linfa::DatasetBase;
use linfa::traits::{Fit, Predict};
use linfa_clustering::KMeans;
use ndarray::Array2;
use serde::{Deserialize, Serialize};

use crate::ensemble::PooledLead;
use crate::model::SeriesModel;
use crate::series::{HORIZONS, TARGETS, Target};

/// Windows that a series has to have seen to be in a group.
const MEMBER_WINDOWS: u32 = 240;
/// Series of a class that make a group.
const MEMBERS_MIN: usize = 3;
/// Series of a class for each group, …
const MEMBERS_PER_GROUP: usize = 8;
/// … of which a class has so many at most.
const GROUPS_MAX: usize = 4;
const ITERATIONS_MAX: u64 = 100;
/// Series of a class that are clustered: of more, so many that are spread over all.
const MEMBERS_MAX: usize = 256;
/// Traits of a series: the level of p99, of the rate, the usual change of p99.
const TRAITS: usize = 3;
/// Traits nearer than that are the same.
const SPREAD_MIN: f64 = 0.1;

/// What the series of a group have learned. Some 5 KB.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    class: u32,
    centre: [f64; TRAITS],
    /// Of the traits among the series of the class.
    spread: [f64; TRAITS],
    /// Usual change from window to window, of a rather restless one: intervals that are
    /// too narrow tell what is not true.
    changes: [Option<f32>; TARGETS],
    leads: [[PooledLead; HORIZONS]; TARGETS],
}

impl Group {
    pub(crate) fn lead(&self, k: usize, h: usize) -> &PooledLead {
        &self.leads[k][h]
    }

    pub(crate) fn change(&self, k: usize) -> Option<f64> {
        self.changes[k].map(f64::from)
    }

    fn pool(class: u32, spread: [f64; TRAITS], members: &[&Member<'_>]) -> Group {
        let models = || members.iter().map(|member| member.model);
        let centre = std::array::from_fn(|i| {
            let traits = members.iter().map(|member| member.traits[i]);
            traits.sum::<f64>() / members.len() as f64
        });
        let changes = Target::ALL.map(|target| {
            let known = models().filter_map(|model| model.outlook().known_change(target));
            let known: Vec<f64> = known.collect();
            let (mean, deviation) = moments(known.iter().copied());
            (!known.is_empty()).then_some((mean + deviation) as f32)
        });
        let leads = Target::ALL.map(|target| {
            std::array::from_fn(|h| {
                let of_lead = models().filter_map(|model| {
                    let unit = model.outlook().known_change(target)?;
                    Some((model.outlook().lead(target.index(), h), unit))
                });
                PooledLead::of(of_lead)
            })
        });
        Group {
            class,
            centre,
            spread,
            changes,
            leads,
        }
    }

    /// In spreads, squared; what is not known of a series tells nothing.
    fn distance(&self, traits: &[Option<f64>; TRAITS]) -> f64 {
        let known = traits.iter().enumerate();
        let distances =
            known.filter_map(|(i, of)| Some((of.as_ref()? - self.centre[i]) / self.spread[i]));
        distances.map(|distance| distance * distance).sum()
    }
}

/// All groups of all classes.
///
/// ```
/// use honeyguide_models::similar::Groups;
/// use honeyguide_models::{Context, Params, SeriesInput, SeriesModel, Window};
///
/// let params = Params::default().validate()?;
/// let window = |i: u64| Window {
///     y: [-7.0, -6.5, -6.0 + 0.3 * (i as f32).sin(), -5.5, 4.0], samples: 1e4, completeness: 1.0,
/// };
/// let history: Vec<Window> = (0..400).map(window).collect();
/// let input = |windows: usize| SeriesInput { step: windows as u64, own: &history[..windows], drivers: &[] };
/// let mut models = vec![SeriesModel::new(); 4];
/// for model in &mut models {
///     (1..=400).for_each(|windows| { model.refresh(&params, input(windows)); });
/// }
/// let groups = Groups::fit(models.iter().map(|model| (7, model)));
/// // A series of the same class that begins now.
/// let mut young = SeriesModel::new();
/// let similar = groups.of(7, &young);
/// assert!(similar.is_some() && groups.of(8, &young).is_none());
/// young.refresh_in(&params, input(1), Context { similar, ..Context::default() });
/// # Ok::<(), honeyguide_models::ParamsError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Groups(Vec<Group>);

/// A series that has something to teach.
struct Member<'a> {
    traits: [f64; TRAITS],
    model: &'a SeriesModel,
}

impl Groups {
    /// Groups series by what they have become. Series of different classes, for instance
    /// signals, are never alike. The order of the series is of no matter.
    ///
    /// A few milliseconds for a class; deterministic.
    pub fn fit<'a>(series: impl IntoIterator<Item = (u32, &'a SeriesModel)>) -> Groups {
        let mut classes: Vec<(u32, Member<'a>)> = series
            .into_iter()
            .filter(|(_, model)| model.history_windows() >= MEMBER_WINDOWS)
            .filter_map(|(class, model)| {
                let [Some(p99), Some(rate), Some(change)] = traits(model) else {
                    return None;
                };
                let traits = [p99, rate, change];
                Some((class, Member { traits, model }))
            })
            .collect();
        classes.sort_by(|(a, m), (b, n)| {
            let traits = m.traits.iter().zip(&n.traits);
            let order = traits.map(|(m, n)| m.total_cmp(n));
            a.cmp(b)
                .then(order.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then))
        });
        let mut groups = Vec::new();
        for of_class in classes.chunk_by(|(a, _), (b, _)| a == b) {
            let every = of_class.len().div_ceil(MEMBERS_MAX);
            let members = of_class.iter().step_by(every);
            let members: Vec<&Member<'_>> = members.map(|(_, member)| member).collect();
            if members.len() >= MEMBERS_MIN {
                add_class(&mut groups, of_class[0].0, &members);
            }
        }
        Groups(groups)
    }

    /// The group that a series is nearest to; `None` if there is none of its class.
    pub fn of(&self, class: u32, model: &SeriesModel) -> Option<&Group> {
        let of_class = self.0.iter().filter(|group| group.class == class);
        let traits = traits(model);
        of_class.min_by(|a, b| a.distance(&traits).total_cmp(&b.distance(&traits)))
    }

    /// How many groups there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn add_class(groups: &mut Vec<Group>, class: u32, members: &[&Member<'_>]) {
    let spread = std::array::from_fn(|i| {
        let (_, deviation) = moments(members.iter().map(|member| member.traits[i]));
        deviation.max(SPREAD_MIN)
    });
    let count = (members.len() / MEMBERS_PER_GROUP).clamp(1, GROUPS_MAX);
    let assigned = cluster(members, &spread, count);
    for group in 0..count {
        let own = members.iter().zip(&assigned);
        let own = own.filter(|(_, assigned)| **assigned == group);
        let own: Vec<&Member<'_>> = own.map(|(member, _)| *member).collect();
        if own.len() >= MEMBERS_MIN {
            groups.push(Group::pool(class, spread, &own));
        }
    }
}

/// The cluster of each member. All are one where there is nothing to tell them by.
fn cluster(members: &[&Member<'_>], spread: &[f64; TRAITS], count: usize) -> Vec<usize> {
    let traits = Array2::from_shape_fn((members.len(), TRAITS), |(row, i)| {
        members[row].traits[i] / spread[i]
    });
    let data = DatasetBase::from(traits);
    // Its random numbers have a fixed seed.
    let means = KMeans::params(count)
        .n_runs(1)
        .max_n_iterations(ITERATIONS_MAX)
        .fit(&data);
    match means {
        Ok(means) if count > 1 => means.predict(&data).to_vec(),
        _ => vec![0; members.len()],
    }
}

fn traits(model: &SeriesModel) -> [Option<f64>; TRAITS] {
    let change = model.outlook().known_change(Target::P99);
    [
        model.level(Target::P99),
        model.level(Target::Rate),
        change.map(f64::ln),
    ]
}

/// Mean and standard deviation.
fn moments(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let count = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / count;
    let variance = values.map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt())
}

#[cfg(test)]
mod tests;
