package fakemodal

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// FunctionPrecreate gives a function its ID before it is defined.
func (v *service) FunctionPrecreate(_ context.Context, r *pb.FunctionPrecreateRequest) (*pb.FunctionPrecreateResponse, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.tables.Functions[r.GetExistingFunctionId()]
	if f == nil {
		f = &function{ID: newID("fu"), AppID: r.GetAppId(), Def: wire(pb.Function_builder{FunctionName: r.GetFunctionName(),
			FunctionType: r.GetFunctionType(), MethodDefinitions: r.GetMethodDefinitions(), FunctionSchema: r.GetFunctionSchema(),
			SupportedInputFormats: r.GetSupportedInputFormats(), SupportedOutputFormats: r.GetSupportedOutputFormats()}.Build())}
		s.tables.Functions[f.ID] = f
	}
	return pb.FunctionPrecreateResponse_builder{FunctionId: f.ID, HandleMetadata: s.handle(f)}.Build(), s.save()
}

func (v *service) FunctionCreate(_ context.Context, r *pb.FunctionCreateRequest) (*pb.FunctionCreateResponse, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.tables.Functions[r.GetExistingFunctionId()]
	if f == nil {
		f = &function{ID: newID("fu"), AppID: r.GetAppId()}
	}
	def := r.GetFunction()
	// With a list of GPUs there is one definition for each, in the order of choice (CODE: _functions.py, ranked_functions).
	if ranked := r.GetFunctionData().GetRankedFunctions(); len(ranked) > 0 {
		def = slices.MinFunc(ranked, func(a, b *pb.FunctionData_RankedFunction) int { return int(a.GetRank()) - int(b.GetRank()) }).GetFunction()
	}
	if err := s.checkMounts(def); err != nil {
		return nil, err
	}
	data := r.GetFunctionData()
	if data == nil { // the answer always has one (CODE: types.py FunctionInfo._from_function_proto)
		only := pb.FunctionData_RankedFunction_builder{Function: def}.Build()
		data = pb.FunctionData_builder{FunctionName: def.GetFunctionName(), ModuleName: def.GetModuleName(),
			RankedFunctions: []*pb.FunctionData_RankedFunction{only}}.Build()
	}
	f.Def, f.Data = wire(def), wire(data)
	s.tables.Functions[f.ID] = f
	return pb.FunctionCreateResponse_builder{FunctionId: f.ID, Function: r.GetFunction(), FunctionData: data,
		HandleMetadata: s.handle(f)}.Build(), s.save()
}

// checkMounts refuses volumes over folders that hold files (the rule is known, when and how Modal says it is a GUESS).
func (s *Server) checkMounts(def *pb.Function) error {
	files := s.files(def)
	for _, v := range def.GetVolumeMounts() {
		full := s.fault(faultMount, v.GetMountPath()) != nil
		for _, f := range files {
			full = full || within(v.GetMountPath(), f.Name)
		}
		if full {
			return status.Errorf(codes.FailedPrecondition, "cannot mount volume on non-empty path: %q", v.GetMountPath())
		}
	}
	return nil
}

// files are the local files that a function's containers see: its own mounts, and what its image has copied.
func (s *Server) files(def *pb.Function) []mountFile {
	var all []mountFile
	for _, im := range s.layers(def.GetImageId()) {
		all = append(all, s.mounted(im.Request.m.GetImage().GetContextMountId())...)
	}
	for _, id := range def.GetMountIds() {
		all = append(all, s.mounted(id)...)
	}
	return all
}

func (s *Server) mounted(id string) []mountFile {
	if m, ok := s.tables.Mounts[id]; ok {
		return m.Files
	}
	return nil
}

func (v *service) ClassCreate(_ context.Context, r *pb.ClassCreateRequest) (*pb.ClassCreateResponse, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.tables.Classes[r.GetExistingClassId()]
	if c == nil {
		c = &class{ID: newID("cs")}
		s.tables.Classes[c.ID] = c
	}
	return pb.ClassCreateResponse_builder{ClassId: c.ID, HandleMetadata: &pb.ClassHandleMetadata{}}.Build(), s.save()
}

func (v *service) ClassGet(_ context.Context, r *pb.ClassGetRequest) (*pb.ClassGetResponse, error) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	if a := v.s.appNamed(r.GetAppName()); a != nil {
		if id, ok := a.ClassIDs[r.GetObjectTag()]; ok {
			return pb.ClassGetResponse_builder{ClassId: id, HandleMetadata: &pb.ClassHandleMetadata{}}.Build(), nil
		}
	}
	return nil, notFound("Class '%s' not found in app '%s'", r.GetObjectTag(), r.GetAppName())
}

func (v *service) FunctionGet(_ context.Context, r *pb.FunctionGetRequest) (*pb.FunctionGetResponse, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := r.GetEnvironmentName(); e != "" && e != Environment {
		return nil, notFound("Environment '%s' not found", e)
	}
	a := s.appNamed(r.GetAppName())
	if a == nil {
		return nil, notFound("App '%s' not found in environment '%s'", r.GetAppName(), Environment)
	}
	id, ok := a.FunctionIDs[r.GetObjectTag()]
	if !ok {
		return nil, notFound("Function '%s' not found in app '%s'", r.GetObjectTag(), r.GetAppName())
	}
	f := s.tables.Functions[id]
	return pb.FunctionGetResponse_builder{FunctionId: id, HandleMetadata: s.handle(f), Function: f.Data.m}.Build(), nil
}

func (v *service) FunctionGetById(_ context.Context, r *pb.FunctionGetByIdRequest) (*pb.FunctionGetByIdResponse, error) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	f, ok := v.s.tables.Functions[r.GetFunctionId()]
	if !ok {
		return nil, notFound("Function %s not found", r.GetFunctionId())
	}
	return pb.FunctionGetByIdResponse_builder{Function: f.Data.m, HandleMetadata: v.s.handle(f)}.Build(), nil
}

// FunctionBindParams makes a variant of a function: other options, other parameters, a pool of containers of its own.
// The same request gives the same variant.
func (v *service) FunctionBindParams(_ context.Context, r *pb.FunctionBindParamsRequest) (*pb.FunctionBindParamsResponse, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	base, ok := s.tables.Functions[r.GetFunctionId()]
	if !ok {
		return nil, notFound("Function %s not found", r.GetFunctionId())
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(r)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(raw)
	id := "fu-" + hex.EncodeToString(sum[:11])
	f, ok := s.tables.Functions[id]
	if !ok {
		f = &function{ID: id, AppID: base.AppID, Base: base.ID, Params: r.GetSerializedParams(), Options: wire(r.GetFunctionOptions())}
		f.derive(base)
		s.tables.Functions[id] = f
	}
	return pb.FunctionBindParamsResponse_builder{BoundFunctionId: id, HandleMetadata: s.handle(f)}.Build(), s.save()
}

// derive makes a variant's definition from its base.
func (f *function) derive(base *function) {
	f.Def = wire(proto.CloneOf(base.Def.m))
	def, o := f.Def.m, f.Options.m
	if o.HasResources() {
		def.SetResources(o.GetResources())
	}
	if o.HasTimeoutSecs() {
		def.SetTimeoutSecs(o.GetTimeoutSecs())
	}
	if o.GetReplaceSecretIds() {
		def.SetSecretIds(o.GetSecretIds())
	}
	if o.GetReplaceVolumeMounts() {
		def.SetVolumeMounts(o.GetVolumeMounts())
	}
	if o.HasSchedulerPlacement() {
		def.SetSchedulerPlacement(o.GetSchedulerPlacement())
	}
	scaling := def.GetAutoscalerSettings()
	if scaling == nil {
		scaling = &pb.AutoscalerSettings{}
	}
	if o.HasConcurrencyLimit() {
		scaling.SetMaxContainers(o.GetConcurrencyLimit())
	}
	if o.HasWarmPoolSize() {
		scaling.SetMinContainers(o.GetWarmPoolSize())
	}
	if o.HasTaskIdleTimeoutSecs() {
		scaling.SetScaledownWindow(o.GetTaskIdleTimeoutSecs())
	}
	def.SetAutoscalerSettings(scaling)
}

func (v *service) FunctionUpdateSchedulingParams(_ context.Context, r *pb.FunctionUpdateSchedulingParamsRequest) (*pb.FunctionUpdateSchedulingParamsResponse, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	f, ok := s.tables.Functions[r.GetFunctionId()]
	if !ok {
		return nil, notFound("Function %s not found", r.GetFunctionId())
	}
	scaling := f.Def.m.GetAutoscalerSettings()
	if scaling == nil {
		scaling = &pb.AutoscalerSettings{}
		f.Def.m.SetAutoscalerSettings(scaling)
	}
	proto.Merge(scaling, r.GetSettings())
	s.kick(s.pool(f.ID))
	s.notify()
	return pb.FunctionUpdateSchedulingParamsResponse_builder{CurrentSettings: scaling}.Build(), s.save()
}

// handle is what a client gets to know of a function. s.mu is held.
func (s *Server) handle(f *function) *pb.FunctionHandleMetadata {
	def := f.Def.m
	base := f.Base
	if base == "" {
		base = f.ID
	}
	b := pb.FunctionHandleMetadata_builder{FunctionName: def.GetFunctionName(), FunctionType: def.GetFunctionType(), IsMethod: def.GetIsMethod(),
		DefinitionId: "de-" + f.ID[3:], ClassParameterInfo: def.GetClassParameterInfo(), FunctionSchema: def.GetFunctionSchema(),
		SupportedInputFormats: def.GetSupportedInputFormats(), SupportedOutputFormats: def.GetSupportedOutputFormats(),
		AppId: f.AppID, BaseFunctionId: base, MethodHandleMetadata: map[string]*pb.FunctionHandleMetadata{}}
	for name, m := range def.GetMethodDefinitions() {
		b.MethodHandleMetadata[name] = pb.FunctionHandleMetadata_builder{FunctionName: m.GetFunctionName(), FunctionType: m.GetFunctionType(),
			IsMethod: true, UseMethodName: name, FunctionSchema: m.GetFunctionSchema(), SupportedInputFormats: m.GetSupportedInputFormats(),
			SupportedOutputFormats: m.GetSupportedOutputFormats(), AppId: f.AppID, BaseFunctionId: base}.Build()
	}
	return b.Build()
}

// A function's settings, with Modal's defaults (DOC: guide/timeouts, guide/scale).

func (f *function) timeout() time.Duration {
	if t := f.Def.m.GetTimeoutSecs(); t > 0 {
		return time.Duration(t) * time.Second
	}
	return 5 * time.Minute
}

func (f *function) startupTimeout() time.Duration {
	if t := f.Def.m.GetStartupTimeoutSecs(); t > 0 {
		return time.Duration(t) * time.Second
	}
	return f.timeout()
}

func (f *function) minContainers() int {
	return int(f.Def.m.GetAutoscalerSettings().GetMinContainers())
}

func (f *function) maxContainers(fallback int) int {
	if n := f.Def.m.GetAutoscalerSettings().GetMaxContainers(); n > 0 {
		return int(n)
	}
	return fallback
}

func (f *function) scaledown() time.Duration {
	if n := f.Def.m.GetAutoscalerSettings().GetScaledownWindow(); n > 0 {
		return time.Duration(n) * time.Second
	}
	return time.Minute
}
