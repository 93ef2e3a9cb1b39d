//! Settings for the whole proxy that it does not take: no object's fault, and no reason to keep objects waiting.

use super::{Attempt, Good};
use crate::annotations::Globals;

/// Settings that are held back.
pub struct HeldSettings {
    /// What was refused: while the ConfigMap asks for that, it is not tried again.
    refused: Globals,
    /// What is in force in their place.
    pub instead: Globals,
    /// The proxy's words.
    pub words: String,
}

impl HeldSettings {
    /// What to put in place of the settings that were refused: first those that were last accepted, then the defaults.
    /// `None`: nothing is left to be tried.
    pub fn after(attempt: &Attempt, words: &str, good: Option<&Good>) -> Option<Self> {
        let tried = [&attempt.wish.globals, &attempt.config.globals];
        let former = good.map(|good| &good.config.globals);
        let mut others = former.cloned().into_iter().chain([Globals::default()]);
        let instead = others.find(|other| !tried.contains(&other))?;
        Some(Self { refused: attempt.wish.globals.clone(), instead, words: words.to_owned() })
    }

    /// Whether the ConfigMap still asks for what was refused.
    pub fn concerns(&self, wish: &Globals) -> bool {
        self.refused == *wish
    }
}
