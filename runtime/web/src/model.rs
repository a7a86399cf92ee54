//! A bundle on the host's device.

use std::sync::Arc;
use std::time::Duration;

use kiln_bundle::Feature;
use kiln_runtime::{Bundle, Device, DeviceOptions, LoadOptions, Model, Session};
use wasm_bindgen::prelude::*;

use crate::Cancel;
use crate::error::to_js;
use crate::object::{number, object};
use crate::session::WebSession;
use crate::source::Source;

/// A loaded model.
#[wasm_bindgen]
pub struct WebModel(Arc<Model>);

#[wasm_bindgen]
impl WebModel {
    /// Opens the device for the variant and streams the weights to it.
    ///
    /// The host has chosen the adapter, and knows that it has what the variant needs: wgpu does not see subgroups in
    /// browsers.
    pub async fn load(source: Source, variant: String, verify: bool, cancel: &Cancel) -> Result<WebModel, JsValue> {
        let options = LoadOptions {
            verify_checksums: verify,
            cancel: cancel.0.clone(),
            ..LoadOptions::default()
        };
        let load = async {
            let bundle = Bundle::open(source).await?;
            let device = DeviceOptions {
                variant: Some(variant),
                host_features: vec![Feature::Subgroups],
                ..DeviceOptions::default()
            };
            let device = Device::open(bundle.manifest(), &device).await?;
            Model::load(device, &bundle, options).await
        };
        Ok(Self(Arc::new(load.await.map_err(to_js)?)))
    }

    /// A session of at most `context` positions.
    pub async fn session(&self, context: Option<u32>) -> Result<WebSession, JsValue> {
        let session = Session::new(Arc::clone(&self.0), context).await.map_err(to_js)?;
        Ok(WebSession::new(session))
    }

    /// How long loading took, in milliseconds.
    #[wasm_bindgen(getter)]
    pub fn report(&self) -> JsValue {
        let report = self.0.load_report();
        object([
            ("totalMs", milliseconds(report.total)),
            ("pipelinesMs", milliseconds(report.pipelines)),
            ("weightsMs", milliseconds(report.weights)),
            ("weightBytes", number(report.weight_bytes)),
        ])
    }

    /// Bytes of all buffers on the device, sessions included.
    #[wasm_bindgen(getter, js_name = allocatedBytes)]
    pub fn allocated_bytes(&self) -> f64 {
        self.0.device().allocated_bytes() as f64
    }

    /// Frees the device's memory at once; whatever uses the model reports a lost device from then on.
    pub fn destroy(&self) {
        self.0.device().destroy();
    }
}

pub(crate) fn milliseconds(time: Duration) -> JsValue {
    JsValue::from_f64(time.as_secs_f64() * 1e3)
}
