//! A container's life in the hollow runtime, and what tests make fail there.

use peapod_api::attach::PodRef;

use super::*;
use crate::runtime::{
    ContainerSpec, Images, NamespaceMode, PullRequest, QosClass, Quiet, Resources, Runtime,
    SandboxSpec,
};

fn sandbox(uid: &str) -> SandboxSpec {
    SandboxSpec {
        pod: PodRef {
            namespace: "default".into(),
            name: "web".into(),
            uid: uid.into(),
        },
        hostname: "web".into(),
        network: NamespaceMode::Pod,
        own_hostname: false,
        ipc: NamespaceMode::Pod,
        pid: NamespaceMode::Container,
        own_users: false,
        sysctls: BTreeMap::new(),
        qos: QosClass::BestEffort,
        resources: Resources::default(),
        runtime_handler: None,
        labels: BTreeMap::new(),
    }
}

fn container(uid: &str, attempt: u32) -> ContainerSpec {
    ContainerSpec {
        pod_uid: uid.into(),
        name: "app".into(),
        attempt,
        image: "nginx".into(),
        ..ContainerSpec::default()
    }
}

#[tokio::test]
async fn a_container_is_created_started_and_killed() {
    let node = Hollow::default();
    let mut events = node.events();
    node.create_sandbox(&sandbox("u1")).await.unwrap();
    let id = node.create_container(&container("u1", 0)).await.unwrap();
    assert_eq!(
        node.create_container(&container("u1", 0)).await.unwrap(),
        id
    );
    node.start_container(&id).await.unwrap();
    node.signal_container(&id, 15).await.unwrap();
    assert!(matches!(
        events.recv().await.unwrap(),
        RuntimeEvent::Started { .. }
    ));
    let RuntimeEvent::Exited { exit, .. } = events.recv().await.unwrap() else {
        panic!("expected an exit")
    };
    assert_eq!(exit.code, 143);
    node.remove_sandbox("u1").await.unwrap();
    assert!(node.containers().await.unwrap().is_empty());
}

#[tokio::test]
async fn what_the_test_breaks_fails() {
    let node = Hollow::default();
    let missing = ImageError::NotFound {
        reference: "nginx".into(),
        reason: "manifest unknown".into(),
    };
    node.fail_pull("nginx", Some(missing));
    let request = PullRequest {
        reference: "nginx".into(),
        ..PullRequest::default()
    };
    assert!(node.pull(&request, &Quiet).await.is_err());

    node.create_sandbox(&sandbox("u1")).await.unwrap();
    node.fail_start("app", "no such file");
    let id = node.create_container(&container("u1", 0)).await.unwrap();
    assert!(node.start_container(&id).await.is_err());
    let state = node.container(&id).await.unwrap().state;
    assert!(matches!(state, ContainerState::Exited(exit) if exit.code == 128));
}
