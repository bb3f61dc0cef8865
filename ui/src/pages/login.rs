//! The page to sign in.

use maud::{Markup, html};

use super::document;

/// The page to sign in with a token, or with a name and a password. `why` says what was wrong the last time; `next` is
/// where it goes on.
pub fn login(by_password: bool, why: Option<&str>, next: &str) -> Markup {
    document(
        "Sign in",
        &html! {
            header { span.brand { "Longhorn base images" } }
            main #main tabindex="-1" {
                h1 { "Sign in" }
                form method="post" action="/login" {
                    input type="hidden" name="next" value=(next);
                    @if by_password {
                        div.field {
                            label for="login-user" { "User" }
                            input id="login-user" name="user" type="text" required autocomplete="username"
                                autocapitalize="none" spellcheck="false";
                        }
                        (secret("password", "Password", why, &html! {}))
                    } @else {
                        (secret("token", "Token", why, &html! {
                            "A token of an account of the cluster: "
                            code { "kubectl create token ACCOUNT --namespace NAMESPACE" }
                        }))
                    }
                    button type="submit" { "Sign in" }
                }
            }
        },
    )
}

/// The field of what proves who somebody is.
fn secret(name: &str, label: &str, why: Option<&str>, help: &Markup) -> Markup {
    let help_id = format!("login-{name}-help");
    let described = match why {
        Some(_) => format!("{help_id} login-error"),
        None => help_id.clone(),
    };
    html! {
        div.field {
            label for={ "login-" (name) } { (label) }
            p.help id=(help_id) { (help) }
            input id={ "login-" (name) } name=(name) type="password" required autocomplete="current-password"
                spellcheck="false" aria-describedby=(described) aria-invalid=[why.map(|_| "true")];
            @if let Some(why) = why {
                div.error id="login-error" role="alert" { p { (why) } }
            }
        }
    }
}
