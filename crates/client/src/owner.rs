//! Whether a driver may use a volume: only its own, and FlexVolume only for pods of the volume's
//! namespace. Both drivers ask here, so that they agree.

use proto::storage::v1 as wire;
use wire::Driver;

/// Who wants to use a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker<'a> {
    /// The CSI plugin. Kubernetes itself sees to the namespaces of claims.
    Csi,
    /// The FlexVolume driver, which is the only guard: the names of inline volumes are the pods'
    /// authors' to choose.
    FlexVolume {
        /// Of the pod; `None`: a controller's call, which is told of no pod.
        namespace: Option<&'a str>,
    },
}

/// Why the volume is not for this driver, and what to do; `None`: it may be used.
pub fn refusal(volume: &wire::Volume, asker: Asker<'_>) -> Option<String> {
    let owner = volume.owner.clone().unwrap_or_default();
    let hand_over = |to: &str| {
        format!(
            "an operator may hand it over: backing-image-manager volume hand-over --name {} --to {to}",
            volume.name
        )
    };
    let namespace = match asker {
        Asker::Csi if owner.driver() == Driver::Flexvolume => {
            let why = "it was created by the FlexVolume driver";
            return Some(format!("{why}; {}", hand_over("csi")));
        }
        Asker::Csi => return None,
        Asker::FlexVolume { namespace } => namespace,
    };
    let to = format!(
        "flexvolume --namespace {}",
        namespace.unwrap_or("NAMESPACE")
    );
    match (owner.driver(), owner.namespace.as_str(), namespace) {
        (Driver::Csi, ..) => Some(format!("it belongs to a claim of CSI; {}", hand_over(&to))),
        (Driver::Unspecified, ..) => Some(format!("its owner is not recorded; {}", hand_over(&to))),
        (Driver::Api, "", _) => Some(format!(
            "it was created for no namespace; {}",
            hand_over(&to)
        )),
        (_, "", _) | (_, _, None) => None,
        (_, own, Some(asked)) if own == asked => None,
        (_, own, Some(asked)) => Some(format!(
            "it belongs to pods of namespace {own:?}, and the pod is in {asked:?}: names of \
             inline volumes apply to the whole cluster; use another name"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(owner: Option<(Driver, &str)>) -> wire::Volume {
        let owner = owner.map(|(driver, namespace)| wire::Owner {
            driver: driver.into(),
            namespace: namespace.to_owned(),
            claim: String::new(),
        });
        wire::Volume {
            name: "v".to_owned(),
            owner,
            ..Default::default()
        }
    }

    #[test]
    fn row_195_a_driver_uses_its_own_volumes_and_flexvolume_those_of_the_pods_namespace() {
        let pod = Asker::FlexVolume {
            namespace: Some("alice"),
        };
        let controller = Asker::FlexVolume { namespace: None };
        for (owner, csi, of_pod, of_controller) in [
            (None, true, false, false),
            (Some((Driver::Unspecified, "alice")), true, false, false),
            (Some((Driver::Csi, "alice")), true, false, false),
            (Some((Driver::Csi, "")), true, false, false),
            (Some((Driver::Api, "")), true, false, false),
            (Some((Driver::Api, "alice")), true, true, true),
            (Some((Driver::Api, "bob")), true, false, true),
            (Some((Driver::Flexvolume, "alice")), false, true, true),
            (Some((Driver::Flexvolume, "bob")), false, false, true),
            // Made by a controller's call; its first pod is whose it becomes.
            (Some((Driver::Flexvolume, "")), false, true, true),
        ] {
            let volume = volume(owner);
            for (asker, may) in [
                (Asker::Csi, csi),
                (pod, of_pod),
                (controller, of_controller),
            ] {
                let refused = refusal(&volume, asker);
                assert_eq!(refused.is_none(), may, "{owner:?} {asker:?}: {refused:?}");
            }
        }
    }
}
