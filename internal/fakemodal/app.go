package fakemodal

import (
	"context"
	"slices"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
)

// What a client asks about itself and the workspace.

func (v *service) ClientHello(context.Context, *empty) (*pb.ClientHelloResponse, error) {
	return pb.ClientHelloResponse_builder{ImageBuilderVersion: builderVersion}.Build(), nil
}

func (v *service) TokenInfoGet(context.Context, *pb.TokenInfoGetRequest) (*pb.TokenInfoGetResponse, error) {
	return pb.TokenInfoGetResponse_builder{TokenId: v.s.opts.TokenID, WorkspaceId: "ac-fake", WorkspaceName: "fake",
		UserIdentity: pb.UserIdentity_builder{UserId: "us-fake", Username: "fake"}.Build(), TokenName: "fake"}.Build(), nil
}

func (v *service) WorkspaceNameLookup(context.Context, *empty) (*pb.WorkspaceNameLookupResponse, error) {
	return pb.WorkspaceNameLookupResponse_builder{Username: "fake"}.Build(), nil
}

func (v *service) EnvironmentList(context.Context, *empty) (*pb.EnvironmentListResponse, error) {
	one := pb.EnvironmentListItem_builder{Name: Environment, Default: true, EnvironmentId: "en-fake"}.Build()
	return pb.EnvironmentListResponse_builder{Items: []*pb.EnvironmentListItem{one}}.Build(), nil
}

func (v *service) EnvironmentGetOrCreate(_ context.Context, r *pb.EnvironmentGetOrCreateRequest) (*pb.EnvironmentGetOrCreateResponse, error) {
	if n := r.GetDeploymentName(); n != "" && n != Environment {
		return nil, notFound("Environment '%s' not found", n)
	}
	settings := pb.EnvironmentSettings_builder{ImageBuilderVersion: builderVersion}.Build()
	return pb.EnvironmentGetOrCreateResponse_builder{EnvironmentId: "en-fake",
		Metadata: pb.EnvironmentMetadata_builder{Name: Environment, Settings: settings}.Build()}.Build(), nil
}

// Apps.

func (s *Server) appNamed(name string) *app {
	return find(s.tables.Apps, func(a *app) bool { return a.Name == name && a.Version > 0 })
}

func (v *service) AppGetByDeploymentName(_ context.Context, r *pb.AppGetByDeploymentNameRequest) (*pb.AppGetByDeploymentNameResponse, error) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	b := pb.AppGetByDeploymentNameResponse_builder{EnvironmentName: Environment}
	if a := v.s.appNamed(r.GetName()); a != nil {
		b.AppId, b.Lifecycle = a.ID, a.lifecycle()
	}
	return b.Build(), nil
}

func (v *service) AppGetOrCreate(_ context.Context, r *pb.AppGetOrCreateRequest) (*pb.AppGetOrCreateResponse, error) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	a := v.s.appNamed(r.GetAppName())
	if a == nil {
		return nil, notFound("App '%s' not found in environment '%s'", r.GetAppName(), Environment)
	}
	md := pb.AppHandleMetadata_builder{AppId: a.ID, Description: a.Name, EnvironmentName: Environment, Lifecycle: a.lifecycle(), Functions: a.FunctionIDs}.Build()
	return pb.AppGetOrCreateResponse_builder{AppId: a.ID, HandleMetadata: md}.Build(), nil
}

func (v *service) AppGetLifecycle(_ context.Context, r *pb.AppGetLifecycleRequest) (*pb.AppGetLifecycleResponse, error) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	a, ok := v.s.tables.Apps[r.GetAppId()]
	if !ok {
		return nil, notFound("App %s not found", r.GetAppId())
	}
	return pb.AppGetLifecycleResponse_builder{Lifecycle: a.lifecycle()}.Build(), nil
}

func (a *app) lifecycle() *pb.AppLifecycle {
	b := pb.AppLifecycle_builder{AppState: pb.AppState_APP_STATE_EPHEMERAL, Version: int32(a.Version), CreatedAt: unix(a.Created),
		CreatedBy: "fake", DeployedAt: unix(a.Deployed)}
	switch {
	case a.Version > 0:
		b.AppState, b.DeployedBy = pb.AppState_APP_STATE_DEPLOYED, "fake"
	case a.Over:
		b.AppState = pb.AppState_APP_STATE_STOPPED
	}
	return b.Build()
}

func (v *service) AppCreate(_ context.Context, r *pb.AppCreateRequest) (*pb.AppCreateResponse, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	a := &app{ID: newID("ap"), Name: r.GetDescription(), Created: time.Now(), FunctionIDs: map[string]string{}, ClassIDs: map[string]string{}}
	s.tables.Apps[a.ID] = a
	url := "https://modal.invalid/apps/" + a.ID
	return pb.AppCreateResponse_builder{AppId: a.ID, AppPageUrl: url, AppLogsUrl: url}.Build(), s.save()
}

func (v *service) AppGetLayout(_ context.Context, r *pb.AppGetLayoutRequest) (*pb.AppGetLayoutResponse, error) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	a, ok := v.s.tables.Apps[r.GetAppId()]
	if !ok {
		return nil, notFound("App %s not found", r.GetAppId())
	}
	return pb.AppGetLayoutResponse_builder{AppLayout: v.s.layout(a)}.Build(), nil
}

// layout is what a container and a second deploy are told of an app's objects. s.mu is held.
func (s *Server) layout(a *app) *pb.AppLayout {
	b := pb.AppLayout_builder{FunctionIds: a.FunctionIDs, ClassIds: a.ClassIDs}
	for _, id := range a.FunctionIDs {
		f := s.tables.Functions[id]
		b.Objects = append(b.Objects, pb.Object_builder{ObjectId: id, FunctionHandleMetadata: s.handle(f)}.Build())
		// A function's other objects: images and secrets have no metadata in a layout (CODE: the oneof in Object).
		for _, d := range f.Def.m.GetObjectDependencies() {
			if _, isFunction := s.tables.Functions[d.GetObjectId()]; isFunction {
				continue
			}
			o := pb.Object_builder{ObjectId: d.GetObjectId()}
			if _, ok := s.tables.Mounts[d.GetObjectId()]; ok {
				o.MountHandleMetadata = &pb.MountHandleMetadata{}
			}
			if vol, ok := s.tables.Volumes[d.GetObjectId()]; ok {
				o.VolumeMetadata = vol.metadata()
			}
			b.Objects = append(b.Objects, o.Build())
		}
	}
	for _, id := range a.ClassIDs {
		md := pb.ClassHandleMetadata_builder{}.Build()
		b.Objects = append(b.Objects, pb.Object_builder{ObjectId: id, ClassHandleMetadata: md}.Build())
	}
	return b.Build()
}

func (v *service) AppPublish(_ context.Context, r *pb.AppPublishRequest) (*pb.AppPublishResponse, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.tables.Apps[r.GetAppId()]
	if !ok {
		return nil, notFound("App %s not found", r.GetAppId())
	}
	a.FunctionIDs, a.ClassIDs = r.GetFunctionIds(), r.GetClassIds()
	if r.GetAppState() == pb.AppState_APP_STATE_DEPLOYED {
		a.Name = r.GetName()
		a.Version++
		a.Deployed = time.Now()
	}
	for _, f := range s.tables.Functions {
		if f.AppID != a.ID {
			continue
		}
		if base := s.tables.Functions[f.Base]; base != nil {
			f.derive(base)
		}
		p := s.pool(f.ID)
		p.retire() // containers of the version before finish what they run (DOC: guide/managing-deployments)
		s.kick(p)
	}
	s.notify()
	return pb.AppPublishResponse_builder{Url: "https://modal.invalid/apps/" + a.ID, DeployedAt: unix(a.Deployed)}.Build(), s.save()
}

func (v *service) AppHeartbeat(context.Context, *pb.AppHeartbeatRequest) (*empty, error) {
	return &empty{}, nil
}

// AppClientDisconnect ends an app that was only there for a `modal run`.
func (v *service) AppClientDisconnect(_ context.Context, r *pb.AppClientDisconnectRequest) (*empty, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.tables.Apps[r.GetAppId()]
	if !ok || a.Version > 0 {
		return &empty{}, nil
	}
	a.Over = true
	for _, t := range s.tasks {
		if t.pool.function(s).AppID == a.ID && !t.ended {
			s.preempt(t, "its app is over")
		}
	}
	s.notify()
	return &empty{}, s.save()
}

// AppGetLogs shows what an app's containers have printed, when the app is over: `modal run` waits for that.
func (v *service) AppGetLogs(r *pb.AppGetLogsRequest, out pb.ModalClient_AppGetLogsServer) error {
	s := v.s
	var printed []*task
	s.mu.Lock()
	over := s.await(out.Context(), time.Now().Add(seconds(r.GetTimeout())), func() bool {
		printed = printed[:0]
		a := s.tables.Apps[r.GetAppId()]
		for _, t := range s.tasks {
			if a != nil && t.pool.function(s).AppID == a.ID {
				printed = append(printed, t)
			}
		}
		return a == nil || a.Over && !slices.ContainsFunc(printed, func(t *task) bool { return !t.ended })
	})
	s.mu.Unlock()
	if !over {
		return nil // the client asks again
	}
	for _, t := range printed {
		items := []*pb.TaskLogs{pb.TaskLogs_builder{Data: s.ContainerLog(t.id), FileDescriptor: pb.FileDescriptor_FILE_DESCRIPTOR_STDOUT}.Build()}
		if err := out.Send(pb.TaskLogsBatch_builder{TaskId: t.id, Items: items}.Build()); err != nil {
			return err
		}
	}
	return out.Send(pb.TaskLogsBatch_builder{AppDone: true}.Build())
}
