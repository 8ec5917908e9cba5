package app

import (
	"context"
	"fmt"

	"go.temporal.io/api/nexus/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/comfyd/comfyd/comfy"
)

// ensureEndpoint makes the Nexus endpoint through which other namespaces start jobs in this one, and tells whether it was
// missing. One of that name that leads elsewhere is an error: it is somebody's.
func ensureEndpoint(ctx context.Context, c client.Client, name, namespace string) (made bool, err error) {
	found, err := c.OperatorService().ListNexusEndpoints(ctx, &operatorservice.ListNexusEndpointsRequest{Name: name})
	if err != nil {
		return false, fmt.Errorf("looking for the Nexus endpoint %s: %w", name, err)
	}
	if there := found.GetEndpoints(); len(there) > 0 {
		to := there[0].GetSpec().GetTarget().GetWorker()
		if to.GetNamespace() == namespace && to.GetTaskQueue() == comfy.TaskQueue {
			return false, nil
		}
		return false, fmt.Errorf("the Nexus endpoint %s leads to the task queue %s of the namespace %s, and not to %s of %s", name, to.GetTaskQueue(), to.GetNamespace(), comfy.TaskQueue, namespace)
	}
	_, err = c.OperatorService().CreateNexusEndpoint(ctx, &operatorservice.CreateNexusEndpointRequest{Spec: &nexus.EndpointSpec{
		Name: name,
		Target: &nexus.EndpointTarget{Variant: &nexus.EndpointTarget_Worker_{
			Worker: &nexus.EndpointTarget_Worker{Namespace: namespace, TaskQueue: comfy.TaskQueue},
		}},
	}})
	if err != nil {
		return false, fmt.Errorf("making the Nexus endpoint %s: %w", name, err)
	}
	return true, nil
}

// registerEndpoint is ensureEndpoint as a step of a setup. Jobs need no endpoint, and not every operator may make one, so
// a failure is told and ends nothing.
func registerEndpoint(ctx context.Context, c client.Client, namespace string, s Setup) {
	if s.NexusEndpoint == "" {
		return
	}
	made, err := ensureEndpoint(ctx, c, s.NexusEndpoint, namespace)
	switch {
	case err != nil:
		fmt.Fprintf(s.Out, "%v; jobs work without it, but not for callers in other namespaces. Another name: --nexus-endpoint NAME; none: --nexus-endpoint ''; by hand: "+
			"temporal operator nexus endpoint create --name NAME --target-namespace %s --target-task-queue %s\n", err, namespace, comfy.TaskQueue)
	case made:
		fmt.Fprintf(s.Out, "Nexus endpoint %s is made, for callers in other namespaces\n", s.NexusEndpoint)
	default:
		fmt.Fprintf(s.Out, "Nexus endpoint %s is there\n", s.NexusEndpoint)
	}
}
