//! The routes of `s3s` to what it has no operation for.

use http::{Extensions, HeaderMap, Method, Uri};
use s3s::route::S3Route;
use s3s::{Body, S3Request, S3Response, S3Result};

use crate::emulator::append::Appends;
use crate::emulator::settings::Settings;

/// All routes: `s3s` takes one.
#[derive(Debug)]
pub(super) struct Routes {
    pub(super) appends: Appends,
    pub(super) settings: Settings,
}

impl Routes {
    fn route<T>(&self, req: &mut S3Request<T>) -> &dyn S3Route {
        let (method, uri, headers) = (&req.method, &req.uri, &req.headers);
        let appends = self
            .appends
            .is_match(method, uri, headers, &mut req.extensions);
        if appends {
            &self.appends
        } else {
            &self.settings
        }
    }
}

#[async_trait::async_trait]
impl S3Route for Routes {
    fn is_match(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        extensions: &mut Extensions,
    ) -> bool {
        self.appends.is_match(method, uri, headers, extensions)
            || self.settings.is_match(method, uri, headers, extensions)
    }

    async fn check_access(&self, req: &mut S3Request<Body>) -> S3Result<()> {
        self.route(req).check_access(req).await
    }

    async fn call(&self, mut req: S3Request<Body>) -> S3Result<S3Response<Body>> {
        self.route(&mut req).call(req).await
    }
}
