//! Dispatches a request to the handler for its path.

use tiny_http::Method;

use super::access_log::Subject;
use super::error::{Error, Result};
use super::keys::{self, KeyPart};
use super::response::Answer;
use super::service::{RequestContext, Service};
use super::{gen_key, metrics};

/// The resource that a path names.
enum Route<'a> {
    Ping,
    Ready,
    Metrics,
    GenKey,
    Keys,
    Key(&'a str, KeyPart),
}

impl<'a> Route<'a> {
    fn of(path: &'a str) -> Option<Self> {
        Some(match path {
            "/ping" => Self::Ping,
            "/ready" => Self::Ready,
            "/metrics" => Self::Metrics,
            "/gen_key" => Self::GenKey,
            "/keys" => Self::Keys,
            path => {
                let (segment, part) = keys::resource(path.strip_prefix("/keys/")?)?;
                Self::Key(segment, part)
            }
        })
    }

    /// Returns the methods of the resource, except for OPTIONS.
    fn methods(&self) -> &'static str {
        match self {
            Self::GenKey => "POST",
            _ => "GET, HEAD",
        }
    }
}

/// Answers a request. Fills in `subject` once it is known which key the request is about.
pub fn answer<'s>(context: &RequestContext<'s, '_>, subject: &mut Subject) -> Result<Answer<'s>> {
    let (path, method) = (&*context.head.path, &context.head.method);
    let route = Route::of(path);
    if *method == Method::Options {
        return Ok(Answer::options(methods(path, route)));
    }
    let route = route.ok_or(Error::NotFound)?;
    let allow = route.methods();
    if !allow.split(", ").any(|allowed| allowed == method.as_str()) {
        return Err(Error::MethodNotAllowed { allow });
    }
    match route {
        Route::Ping => Ok(Answer::text(200, "pong\n")),
        Route::Ready => Ok(ready(context.service)),
        Route::Metrics => Ok(metrics::answer(context.service)),
        Route::GenKey => gen_key::answer(context, subject),
        Route::Keys => keys::list(context),
        Route::Key(segment, part) => keys::one(context, segment, part, subject),
    }
}

/// Returns the methods that a path supports besides OPTIONS, which every path answers: load balancers send it
/// to `/` or `*`. Does not check whether a key exists.
fn methods(path: &str, route: Option<Route>) -> Option<&'static str> {
    match path {
        "*" => Some("GET, HEAD, POST"),
        _ => route.map(|route| route.methods()),
    }
}

fn ready(service: &Service) -> Answer<'static> {
    match service.readiness.ask(|| service.store.ready()) {
        None => Answer::text(200, "ready\n"),
        Some(why_not) => Answer::text(503, format!("not ready: {why_not}\n")).repeatable(),
    }
}
