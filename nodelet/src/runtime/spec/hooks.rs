//! Programs that the OCI runtime runs beside a container.

use oci_spec::runtime::{Hook as OciHook, Hooks};

use crate::runtime::{Hook, HookStage};

/// All of them, by their stages; `None` if there are none.
pub fn hooks(all: &[Hook]) -> Option<Hooks> {
    if all.is_empty() {
        return None;
    }
    let of = |stage| {
        let own = all.iter().filter(|hook| hook.stage == stage).map(hook);
        let own: Vec<OciHook> = own.collect();
        (!own.is_empty()).then_some(own)
    };
    let mut hooks = Hooks::default();
    // Deprecated, but what most descriptions of devices have.
    #[allow(deprecated)]
    hooks.set_prestart(of(HookStage::Prestart));
    hooks
        .set_create_runtime(of(HookStage::CreateRuntime))
        .set_create_container(of(HookStage::CreateContainer))
        .set_start_container(of(HookStage::StartContainer))
        .set_poststart(of(HookStage::Poststart))
        .set_poststop(of(HookStage::Poststop));
    Some(hooks)
}

fn hook(hook: &Hook) -> OciHook {
    let mut oci = OciHook::default();
    oci.set_path(hook.path.clone())
        .set_args(Some(hook.args.clone()))
        .set_env(Some(hook.env.clone()))
        .set_timeout(hook.timeout_s);
    oci
}
