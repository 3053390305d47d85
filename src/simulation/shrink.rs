//! Making a plan that fails smaller: operations are left out as long as it still fails (delta debugging, after Zeller
//! and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002).
//!
//! # Thread safety
//! Plain functions.

use super::plan::{Plan, Step};

/// The smallest plan that was found of those for which `fails` holds, by leaving out steps of `plan`, for which it does.
/// The last step always stays. `fails` is asked at most so often.
pub(crate) fn shrink(plan: &Plan, mut tries: usize, mut fails: impl FnMut(&Plan) -> bool) -> Plan {
    let Some((last, rest)) = plan.steps.split_last() else { return plan.clone() };
    let mut kept: Vec<Step> = rest.to_vec();
    let mut width = kept.len().div_ceil(2).max(1);
    while !kept.is_empty() && tries > 0 {
        let mut at = 0;
        let before = kept.len();
        while at < kept.len() && tries > 0 {
            tries -= 1;
            let mut fewer = kept.clone();
            fewer.drain(at..kept.len().min(at + width));
            let steps = fewer.iter().chain([last]).copied().collect();
            if fails(&Plan { settings: plan.settings, steps }) {
                kept = fewer;
            } else {
                at += width;
            }
        }
        if width == 1 && kept.len() == before {
            break;
        }
        width = if kept.len() == before { (width / 2).max(1) } else { width.min(kept.len()).max(1) };
    }
    let steps = kept.iter().chain([last]).copied().collect();
    Plan { settings: plan.settings, steps }
}

#[cfg(test)]
mod tests {
    use super::{
        super::plan::{Level, Operation, Settings},
        *,
    };

    #[test]
    fn what_has_no_part_in_the_failure_is_left_out() {
        let settings = Settings { positional: false, level: Level::Written, few_files: false };
        let step = |seed| Step { seed, operation: Operation::StepFlusher };
        let plan = Plan { settings, steps: (0..100).map(step).collect() };
        let needed = [3, 50, 51, 98];
        let mut tries = 0;
        let small = shrink(&plan, 1000, |plan| {
            tries += 1;
            needed.iter().all(|seed| plan.steps.iter().any(|step| step.seed == *seed))
        });
        assert_eq!(small.steps.iter().map(|step| step.seed).collect::<Vec<_>>(), [3, 50, 51, 98, 99]);
        assert!(tries < 200, "{tries}");
    }

    #[test]
    fn it_ends_when_it_may_not_try_any_more() {
        let settings = Settings { positional: false, level: Level::Written, few_files: false };
        let steps = (0..100).map(|seed| Step { seed, operation: Operation::StepFlusher }).collect();
        let plan = Plan { settings, steps };
        assert_eq!(shrink(&plan, 0, |_| true), plan);
    }
}
