//! Which requests of a service belong together.

use std::fmt;

use sensor_common::http::{Method, TEMPLATE_LEN_MAX};

/// A route of a service, in the order in which batches have them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Route {
    /// All requests that have no route of their own.
    Other,
    /// HTTP requests of one method whose paths fit one template.
    Http {
        /// The method.
        method: Method,
        /// The path, with `{id}` for what looks generated.
        template: Template,
    },
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Route::Other => f.pad("other"),
            Route::Http { method, template } => {
                write!(f, "{} {}", method.name(), template.as_str())
            }
        }
    }
}

/// A checked template of paths, such as `/users/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Template(String);

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no template of paths: expected `/`, then up to {TEMPLATE_LEN_MAX} printable bytes in all"
)]
pub struct TemplateError(String);

impl Template {
    /// Checks that `text` begins with `/`, is printable ASCII without spaces,
    /// and not too long.
    ///
    /// # Errors
    /// [`TemplateError`] has the begin of the text.
    pub fn new(text: &str) -> Result<Self, TemplateError> {
        let valid = text.starts_with('/')
            && text.len() <= TEMPLATE_LEN_MAX
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !valid {
            let begin = text.chars().take(TEMPLATE_LEN_MAX).collect();
            return Err(TemplateError(begin));
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_checked() {
        for valid in ["/", "/users/{id}", "/a?b"] {
            assert_eq!(Template::new(valid).unwrap().as_str(), valid);
        }
        let long = format!("/{}", "x".repeat(TEMPLATE_LEN_MAX));
        for wrong in ["", "users", "/a b", "/a\n", "/caf\u{e9}", &long] {
            assert!(Template::new(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_route_reads_as_method_and_template() {
        let route = Route::Http {
            method: Method::Get,
            template: Template::new("/users/{id}").unwrap(),
        };
        assert_eq!(route.to_string(), "GET /users/{id}");
        assert_eq!(Route::Other.to_string(), "other");
        assert!(Route::Other < route);
    }
}
