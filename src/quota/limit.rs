//! What [`InFlightLimitLayer`](super::InFlightLimitLayer) and [`RateLimitLayer`](super::RateLimitLayer) have in
//! common.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use http::{Request, Response, request};

use super::{LimitRejection, Subject, layer::FromRequest};
use crate::{
    error::{ProblemJson, Reject},
    key::{KeyId, KeyLimit, Limit},
    request::RequestContext,
};

/// Whose requests are limited, and what a rejection looks like.
#[derive(Clone)]
pub(super) struct LimitConfig {
    subject: LimitSource,
    name: Cow<'static, str>,
    reject: Arc<dyn Reject>,
}

/// Where the subject of a request and its limit come from.
#[derive(Clone)]
enum LimitSource {
    /// It is the key of the request's context. All keys have this limit.
    Key(Limit),
    /// It is the key of the request's context, whose record has the limit.
    Record(KeyLimit),
    /// The request says it.
    Request(FromRequest<Subject>),
}

/// A subject, and the number of requests that it may have.
pub(super) type LimitedSubject = (KeyId, u64);

impl LimitConfig {
    pub(super) fn new(limit: Limit, name: &'static str) -> Self {
        Self { subject: LimitSource::Key(limit), name: name.into(), reject: Arc::new(ProblemJson) }
    }

    /// Limits each key by this limit of its record.
    pub(super) fn of_record(limit: KeyLimit, name: &'static str) -> Self {
        Self { subject: LimitSource::Record(limit), ..Self::new(Limit::Unlimited, name) }
    }

    pub(super) fn subject<F, T>(self, subject: F) -> Self
    where
        F: Fn(&request::Parts) -> T + Send + Sync + 'static,
        T: Into<Subject>,
    {
        let subject = move |request: &request::Parts| subject(request).into();
        Self { subject: LimitSource::Request(Arc::new(subject)), ..self }
    }

    pub(super) fn name(self, name: Cow<'static, str>) -> Self {
        Self { name, ..self }
    }

    pub(super) fn reject(self, reject: impl Reject) -> Self {
        Self { reject: Arc::new(reject), ..self }
    }

    /// Returns the request with its subject, which is `None` if the request passes without being counted.
    #[inline]
    pub(super) fn identify<B>(
        &self,
        request: Request<B>,
    ) -> (Request<B>, Result<Option<LimitedSubject>, LimitRejection>) {
        match &self.subject {
            LimitSource::Key(Limit::Unlimited) => (request, Ok(None)),
            LimitSource::Key(Limit::Units(limit)) => {
                let context = request.extensions().get::<RequestContext>();
                let key = context.and_then(RequestContext::key_subject);
                (request, key.map(|key| Some((key.id, *limit))).ok_or(LimitRejection::NoSubject))
            }
            LimitSource::Record(limit) => {
                let context = request.extensions().get::<RequestContext>();
                let subject = context.and_then(RequestContext::key).map(|key| {
                    let units = key.limits.get(*limit).units();
                    units.map(|units| (key.id.clone(), units))
                });
                (request, subject.ok_or(LimitRejection::NoSubject))
            }
            LimitSource::Request(subject) => {
                let (head, body) = request.into_parts();
                let subject = limited(subject(&head));
                (Request::from_parts(head, body), subject)
            }
        }
    }

    /// Renders a rejection of this request.
    pub(super) fn render<B>(
        &self,
        rejection: LimitRejection,
        request: &Request<B>,
    ) -> Response<Bytes> {
        if rejection == LimitRejection::NoSubject {
            tracing::error!(
                limit = &*self.name,
                "request has no subject: rejecting it; put the layer that identifies the client \
                 (TrialKeyAuthLayer) outside of the limit: before it in a ServiceBuilder, after it \
                 with Router::layer"
            );
        }
        rejection.by(self.name.clone()).render(&*self.reject, request)
    }
}

fn limited(subject: Subject) -> Result<Option<LimitedSubject>, LimitRejection> {
    match subject {
        Subject::Counted(subject) => Ok(subject.limit.units().map(|limit| (subject.id, limit))),
        Subject::Exempt => Ok(None),
        Subject::Unknown => Err(LimitRejection::NoSubject),
    }
}
