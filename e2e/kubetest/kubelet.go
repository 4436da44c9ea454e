package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// kubelet plays scheduler and nodes: it binds each pod to the node n1, gives it the status that its images ask for, and removes
// it when it is deleted. An image whose name contains one of these words, or whose digest begins with its digits, behaves so:
//
//	never-ready  sha256:0dead…  runs and does not become ready
//	no-image     sha256:0404…   waits with ImagePullBackOff
//	crash        sha256:0c4a5…  waits with CrashLoopBackOff
//	slow-stop    sha256:0510…   is removed at the end of its grace period, others at once
//
// Pods that are not restarted (those of Jobs) succeed after a moment.
type kubelet struct {
	client kubernetes.Interface
}

const node = "n1"

// digits are the first digits of a digest that behaves as the word says.
var digits = map[string]string{"never-ready": "0dead", "no-image": "0404", "crash": "0c4a5", "slow-stop": "0510"}

// behaves tells whether an image behaves as the word says.
func behaves(image, word string) bool {
	return strings.Contains(image, word) || strings.Contains(image, "@sha256:"+digits[word])
}

func (k *kubelet) start(ctx context.Context) error {
	n := &core.Node{ObjectMeta: metav1.ObjectMeta{Name: node, Labels: map[string]string{"kubernetes.io/hostname": node}}}
	n, err := k.client.CoreV1().Nodes().Create(ctx, n, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	n.Spec.Taints = nil // the API server gives each new node the taint not-ready, which keeps the pods of a DaemonSet away
	if n, err = k.client.CoreV1().Nodes().Update(ctx, n, metav1.UpdateOptions{}); err != nil {
		return err
	}
	n.Status.Conditions = []core.NodeCondition{{Type: core.NodeReady, Status: core.ConditionTrue, Reason: "KubeletReady"}}
	if _, err := k.client.CoreV1().Nodes().UpdateStatus(ctx, n, metav1.UpdateOptions{}); err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(k.client, 10*time.Second)
	sync := func(object any) {
		if pod, ok := object.(*core.Pod); ok {
			go k.sync(ctx, pod.DeepCopy())
		}
	}
	if _, err := factory.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: sync, UpdateFunc: func(_, object any) { sync(object) },
	}); err != nil {
		return err
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	return nil
}

// sync takes the next step for a pod. An error is left to the next event or to the informer's resync.
func (k *kubelet) sync(ctx context.Context, pod *core.Pod) {
	pods := k.client.CoreV1().Pods(pod.Namespace)
	switch {
	case pod.DeletionTimestamp != nil:
		if slow := says(pod, "slow-stop"); slow && !sleep(ctx, time.Until(pod.DeletionTimestamp.Time)) {
			return
		}
		now := int64(0)
		_ = pods.Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &pod.UID}})
	case pod.Spec.NodeName == "":
		_ = pods.Bind(ctx, &core.Binding{
			ObjectMeta: metav1.ObjectMeta{Name: pod.Name, UID: pod.UID}, Target: core.ObjectReference{Kind: "Node", Name: node},
		}, metav1.CreateOptions{})
	case pod.Status.Phase == core.PodSucceeded || pod.Status.Phase == core.PodFailed:
	default:
		if pod.Status.Phase == core.PodRunning && pod.Spec.RestartPolicy != core.RestartPolicyAlways && !sleep(ctx, 200*time.Millisecond) {
			return
		}
		before := pod.Status.DeepCopy()
		report(pod)
		if !equality.Semantic.DeepEqual(before, &pod.Status) {
			_, _ = pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{})
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func says(pod *core.Pod, word string) bool {
	for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
		if behaves(c.Image, word) {
			return true
		}
	}
	return false
}

// report sets the status that a kubelet would report.
func report(pod *core.Pod) {
	status, now := &pod.Status, metav1.Now().Rfc3339Copy()
	status.ObservedGeneration = pod.Generation
	if status.StartTime == nil {
		status.StartTime, status.HostIP, status.PodIP = &now, "127.0.0.1", "127.0.0.1"
		status.HostIPs, status.PodIPs = []core.HostIP{{IP: "127.0.0.1"}}, []core.PodIP{{IP: "127.0.0.1"}}
	}
	finished := status.Phase == core.PodRunning && pod.Spec.RestartPolicy != core.RestartPolicyAlways && !says(pod, "never-ready")
	started, blocked := true, false
	status.InitContainerStatuses = nil
	for _, c := range pod.Spec.InitContainers {
		sidecar := c.RestartPolicy != nil && *c.RestartPolicy == core.ContainerRestartPolicyAlways
		s := container(c, *status.StartTime, finished || !sidecar)
		s.Ready = s.Ready || !sidecar && s.State.Terminated != nil
		blocked = blocked || s.State.Waiting != nil
		started = started && (s.Ready || !sidecar)
		status.InitContainerStatuses = append(status.InitContainerStatuses, s)
	}
	ready := started && !blocked && !finished
	status.ContainerStatuses = nil
	for _, c := range pod.Spec.Containers {
		s := container(c, *status.StartTime, finished)
		if blocked {
			s.Ready, s.Started, s.ImageID = false, new(bool), ""
			s.State = core.ContainerState{Waiting: &core.ContainerStateWaiting{Reason: "PodInitializing"}}
		}
		ready = ready && s.Ready
		status.ContainerStatuses = append(status.ContainerStatuses, s)
	}
	switch {
	case finished:
		status.Phase = core.PodSucceeded
	case blocked || waiting(status.ContainerStatuses):
		status.Phase = core.PodPending
	default:
		status.Phase = core.PodRunning
	}
	set(status, core.PodInitialized, !blocked, now)
	set(status, core.ContainersReady, ready, now)
	set(status, core.PodReady, ready, now)
}

func waiting(all []core.ContainerStatus) bool {
	for _, s := range all {
		if s.State.Waiting != nil && s.State.Waiting.Reason != "CrashLoopBackOff" {
			return true
		}
	}
	return false
}

func container(c core.Container, at metav1.Time, finished bool) core.ContainerStatus {
	yes, no := true, false
	s := core.ContainerStatus{Name: c.Name, Image: c.Image, ImageID: id(c.Image), Started: &yes, Ready: !finished}
	switch {
	case behaves(c.Image, "no-image"):
		s.Ready, s.Started, s.ImageID = false, &no, ""
		s.State.Waiting = &core.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: fmt.Sprintf("Back-off pulling image %q", c.Image)}
	case behaves(c.Image, "crash"):
		s.Ready, s.Started, s.RestartCount = false, &no, 3
		s.State.Waiting = &core.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: "back-off 40s restarting failed container"}
		s.LastTerminationState.Terminated = &core.ContainerStateTerminated{ExitCode: 1, Reason: "Error", StartedAt: at, FinishedAt: at}
	case finished:
		s.Started = &no
		s.State.Terminated = &core.ContainerStateTerminated{ExitCode: 0, Reason: "Completed", StartedAt: at, FinishedAt: at}
	default:
		s.Ready = !behaves(c.Image, "never-ready")
		s.State.Running = &core.ContainerStateRunning{StartedAt: at}
	}
	return s
}

// id is the image as a runtime names it: by repository and digest, without the tag.
func id(image string) string {
	name, digest, pinned := strings.Cut(image, "@")
	if !pinned {
		digest = fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(image)))
	}
	if colon := strings.LastIndex(name, ":"); colon > strings.LastIndex(name, "/") {
		name = name[:colon]
	}
	return name + "@" + digest
}

func set(status *core.PodStatus, kind core.PodConditionType, yes bool, now metav1.Time) {
	value := core.ConditionFalse
	if yes {
		value = core.ConditionTrue
	}
	for i := range status.Conditions {
		if c := &status.Conditions[i]; c.Type == kind {
			if c.Status != value {
				c.Status, c.LastTransitionTime = value, now
			}
			return
		}
	}
	status.Conditions = append(status.Conditions, core.PodCondition{Type: kind, Status: value, LastTransitionTime: now})
}
