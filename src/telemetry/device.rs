//! What happens with device-bound sessions.

use crate::policy::dbsc::Endpoint;
use crate::policy::dbsc::PublicKey;
use crate::policy::dbsc::RefusedDevice;
use crate::policy::session::UserName;
use crate::telemetry::Context;
use crate::telemetry::audit::emit;

/// What happened with a device-bound session.
pub enum DeviceEvent<'a> {
    /// A browser registered its key for it.
    Registered {
        /// The key.
        key: &'a PublicKey,
    },
    /// It proved that it still has it.
    Refreshed,
    /// A registration or a refresh was refused.
    Refused {
        /// Which.
        endpoint: Endpoint,
        /// Why.
        reason: RefusedDevice,
    },
    /// Somebody says that a refresh was not possible, and asks without.
    Skipped {
        /// Why.
        word: &'a str,
    },
}

pub(super) fn write(context: &Context, event: &DeviceEvent<'_>) {
    match event {
        DeviceEvent::Registered { key } => {
            let (algorithm, thumbprint) = (key.algorithm(), key.thumbprint());
            emit!(info, context, "device.registered", algorithm = algorithm, key = thumbprint);
        }
        DeviceEvent::Refreshed => emit!(info, context, "device.refreshed"),
        DeviceEvent::Refused { endpoint, reason } if reason.is_usual() => {
            emit!(info, context, "device.refused", at = endpoint.as_str(), reason = reason.as_str());
        }
        DeviceEvent::Refused { endpoint, reason } => {
            emit!(warn, context, "device.refused", at = endpoint.as_str(), reason = reason.as_str());
        }
        DeviceEvent::Skipped { word } => emit!(info, context, "device.skipped", reason = word),
    }
}
