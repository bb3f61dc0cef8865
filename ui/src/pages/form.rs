//! Fields of forms: each with its label, its help, and what is wrong with it.

use maud::{Markup, html};
use types::ErrorKind;

use super::words;

/// Why something was not done: beside which field it is said, the sentence of who refused, and the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The name of the field; empty: of none.
    pub field: &'static str,
    /// The sentence, unchanged.
    pub sentence: String,
    /// What it means.
    pub kind: ErrorKind,
}

/// The refusal of a field, where it is there.
pub(super) fn about<'a>(refusal: Option<&'a Refusal>, field: &str) -> Option<&'a Refusal> {
    refusal.filter(|refusal| refusal.field == field)
}

/// A refusal that is of no field, or of the form as a whole.
pub(super) fn whole(refusal: Option<&Refusal>) -> Markup {
    html! {
        @if let Some(refusal) = about(refusal, "") {
            div.error role="alert" { (sentence(refusal)) }
        }
    }
}

fn sentence(refusal: &Refusal) -> Markup {
    html! { p { (refusal.sentence) " " code { (words::code(refusal.kind)) } } }
}

/// A field of a form, but for its control.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'a> {
    /// The start of its ids: forms on one page have different ones.
    pub(super) prefix: &'a str,
    /// Its name in the request.
    pub(super) name: &'a str,
    pub(super) label: &'a str,
    pub(super) help: &'a str,
    pub(super) refusal: Option<&'a Refusal>,
}

impl<'a> Field<'a> {
    pub(super) const fn new(prefix: &'a str, name: &'a str, label: &'a str) -> Self {
        Self {
            prefix,
            name,
            label,
            help: "",
            refusal: None,
        }
    }

    pub(super) const fn help(mut self, help: &'a str) -> Self {
        self.help = help;
        self
    }

    pub(super) fn refused(mut self, refusal: Option<&'a Refusal>) -> Self {
        self.refusal = about(refusal, self.name);
        self
    }

    pub(super) fn id(&self) -> String {
        format!("{}-{}", self.prefix, self.name)
    }

    /// The ids of what describes it, for `aria-describedby`.
    pub(super) fn described_by(&self) -> Option<String> {
        let id = self.id();
        let help = (!self.help.is_empty()).then(|| format!("{id}-help"));
        let error = self.refusal.is_some().then(|| format!("{id}-error"));
        match (help, error) {
            (Some(help), Some(error)) => Some(format!("{help} {error}")),
            (help, error) => help.or(error),
        }
    }

    pub(super) fn invalid(&self) -> Option<&'static str> {
        self.refusal.is_some().then_some("true")
    }

    /// The field around its control.
    pub(super) fn around(&self, control: &Markup) -> Markup {
        let id = self.id();
        html! {
            div.field {
                label for=(id) { (self.label) }
                @if !self.help.is_empty() {
                    p.help id={ (id) "-help" } { (self.help) }
                }
                (control)
                @if let Some(refusal) = self.refusal {
                    div.error id={ (id) "-error" } role="alert" { (sentence(refusal)) }
                }
            }
        }
    }

    /// A line of text.
    pub(super) fn text(&self, value: &str) -> Markup {
        self.input("text", value, 1024)
    }

    /// An input of a type.
    pub(super) fn input(&self, kind: &str, value: &str, most: usize) -> Markup {
        self.around(&html! {
            input id=(self.id()) name=(self.name) type=(kind) value=(value) maxlength=(most)
                autocomplete="off" spellcheck="false" autocapitalize="none"
                aria-describedby=[self.described_by()] aria-invalid=[self.invalid()];
        })
    }

    /// A size: a number and its unit, which is a field of its own.
    pub(super) fn size(&self, number: &str, unit: &str) -> Markup {
        let id = self.id();
        html! {
            div.field {
                label for=(id) { (self.label) }
                @if !self.help.is_empty() {
                    p.help id={ (id) "-help" } { (self.help) }
                }
                div.pair {
                    input id=(id) name=(self.name) type="text" inputmode="decimal" value=(number) maxlength="32"
                        autocomplete="off" aria-describedby=[self.described_by()] aria-invalid=[self.invalid()];
                    label.unseen for={ (id) "-unit" } { "Unit of " (self.label) }
                    select id={ (id) "-unit" } name={ (self.name) "_unit" } {
                        @for one in UNITS {
                            option value=(one) selected[*one == unit] { (one) "B" }
                        }
                    }
                }
                @if let Some(refusal) = self.refusal {
                    div.error id={ (id) "-error" } role="alert" { (sentence(refusal)) }
                }
            }
        }
    }

    /// One of these values, each with its words.
    pub(super) fn select(
        &self,
        value: &str,
        options: &[(String, String)],
        disabled: bool,
    ) -> Markup {
        self.around(&html! {
            select id=(self.id()) name=(self.name) disabled[disabled]
                aria-describedby=[self.described_by()] aria-invalid=[self.invalid()] {
                @for (one, word) in options {
                    option value=(one) selected[one == value] { (word) }
                }
            }
        })
    }
}

/// The units of a size, as quantities write them.
pub(super) const UNITS: &[&str] = &["Mi", "Gi", "Ti"];
