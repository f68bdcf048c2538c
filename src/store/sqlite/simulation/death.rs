/// How the process ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Death {
    Kill,
    LossOfPower,
}
