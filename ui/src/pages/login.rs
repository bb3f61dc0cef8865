//! The page to sign in.

use maud::{Markup, html};

use super::document;

/// The page to sign in with a token. `why` says what was wrong the last time; `next` is where it goes on.
pub fn login(why: Option<&str>, next: &str) -> Markup {
    document(
        "Sign in",
        &html! {
            header { span.brand { "Longhorn base images" } }
            main #main tabindex="-1" {
                h1 { "Sign in" }
                form method="post" action="/login" {
                    input type="hidden" name="next" value=(next);
                    div.field {
                        label for="login-token" { "Token" }
                        p.help id="login-token-help" {
                            "A token of an account of the cluster: "
                            code { "kubectl create token ACCOUNT --namespace NAMESPACE" }
                        }
                        input id="login-token" name="token" type="password" required
                            autocomplete="current-password" spellcheck="false"
                            aria-describedby=(if why.is_some() { "login-token-help login-token-error" } else { "login-token-help" })
                            aria-invalid=[why.map(|_| "true")];
                        @if let Some(why) = why {
                            div.error id="login-token-error" role="alert" { p { (why) } }
                        }
                    }
                    button type="submit" { "Sign in" }
                }
            }
        },
    )
}
