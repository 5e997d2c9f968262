//! Switches that user space sets while programs run.

use aya_ebpf::{
    macros::map,
    maps::{Array, PerCpuArray},
};
use sensor_common::record::{GlobalConfig, SAMPLING_SHIFT_MASK, SIGNAL_OFF, SignalConfig};

/// `BPF_F_MMAPABLE`: user space shares the memory.
pub const MMAPABLE: u32 = 1 << 10;

#[map]
static CONFIG: Array<GlobalConfig> = Array::with_max_entries(1, MMAPABLE);

/// State of a linear congruential generator per CPU: a random number for
/// sampling costs 2 ns instead of the helper's 30.
#[map]
static RANDOM: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// The global configuration.
#[inline(always)]
pub fn global() -> Option<&'static GlobalConfig> {
    CONFIG.get(0)
}

/// Number of a [`sensor_common::Signal`]. Not the enumeration itself: the
/// compiler trusts its range and drops the bounds check that the verifier
/// needs to see.
pub type SignalNumber = u32;

/// Sampling decision of one event.
///
/// One random number decides both stages, so an event that passes the
/// service's (stricter) ratio has passed the first stage as well. It is drawn
/// only when a stage does not take everything.
///
/// User space changes ratios while events are under way. An event is weighed
/// with the shift of the first stage that it did pass, or the service's if that
/// is greater: so its weight is right whichever of the two is written first.
#[derive(Clone, Copy)]
pub struct Draw {
    /// Drawn if the first stage had to.
    number: u32,
    /// Shift of the first stage.
    first: SignalConfig,
}

impl Draw {
    /// First stage: the smallest ratio any service has for `signal`. `None`
    /// ends the event at the cost of two loads.
    #[inline(always)]
    pub fn first_stage(global: &GlobalConfig, signal: SignalNumber) -> Option<Draw> {
        let config = *global.first_stage.get(signal as usize)?;
        if config & SIGNAL_OFF != 0 {
            return None;
        }
        let first = config & SAMPLING_SHIFT_MASK;
        if first == 0 {
            return Some(Draw { number: 0, first });
        }
        let number = random();
        if number & ((1u32 << first) - 1) != 0 {
            return None;
        }
        Some(Draw { number, first })
    }

    /// The shift that the event passed, for [`second_stage`](Self::second_stage).
    #[inline(always)]
    pub fn first(self) -> SignalConfig {
        self.first
    }

    /// For an event that passed the `first` stage a while ago: draws for the
    /// rest of the way to `config`, and gives the whole weight if it passes.
    #[inline(always)]
    pub fn second_stage(first: SignalConfig, config: SignalConfig) -> Option<u32> {
        if config & SIGNAL_OFF != 0 {
            return None;
        }
        let (first, shift) = (first & SAMPLING_SHIFT_MASK, config & SAMPLING_SHIFT_MASK);
        if shift <= first {
            return Some(1u32 << first);
        }
        if random() & ((1u32 << (shift - first)) - 1) != 0 {
            return None;
        }
        Some(1u32 << shift)
    }

    /// The weight 2^k of the event if it passes at `config`.
    #[inline(always)]
    pub fn passes(self, config: SignalConfig) -> Option<u32> {
        if config & SIGNAL_OFF != 0 {
            return None;
        }
        let shift = config & SAMPLING_SHIFT_MASK;
        if shift <= self.first {
            return Some(1u32 << self.first);
        }
        let number = if self.first == 0 {
            random()
        } else {
            self.number
        };
        if number & ((1u32 << shift) - 1) != 0 {
            return None;
        }
        Some(1u32 << shift)
    }
}

/// Upper half of Knuth's MMIX generator (TAOCP 3.3.4), seeded by user space.
#[inline(always)]
pub fn random() -> u32 {
    let Some(state) = RANDOM.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: a per-CPU value; an interrupt in between only repeats a number.
    unsafe {
        *state = (*state)
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (*state >> 32) as u32
    }
}
