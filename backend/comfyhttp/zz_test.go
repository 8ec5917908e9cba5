package comfyhttp
import ("testing";"time";"os";"os/exec";"github.com/stretchr/testify/require";"github.com/comfyd/comfyd/backend";"github.com/comfyd/comfyd/backend/backendtest")
func TestZZ(t *testing.T){
 url:=realComfyUI(t)
 stall:=make(chan string,5)
 b := open(t, Options{URLs: []string{url}, OnStall: func(s string, w error){ stall<-s+": "+w.Error() }}, defaultTiming())
 require.NoError(t, b.Probe(t.Context()))
 _,err:=b.servers[0].call(t.Context(), time.Second,"POST","/prompt",[]byte(`{"prompt":{"1":{"class_type":"EmptyImage","inputs":{"width":8,"height":8,"batch_size":1,"color":1,"zzz":["zzz",0]}},"2":{"class_type":"PreviewImage","inputs":{"images":["1",0]}}},"prompt_id":"stranger","client_id":"x"}`))
 require.NoError(t,err)
 p:=backendtest.Prompt(t,solid(77)); p.StallTimeout=5*time.Second
 t0:=time.Now()
 _,err=b.Run(t.Context(),p,nil,newRecorder()); t.Log(time.Since(t0), err, err.(*backend.Error).Ran); t.Log(<-stall); t.Log(b.Servers()[0].Problem)
 t.Log("ready:", b.Ready(t.Context(),p))
 // restart
 restart:=func(){ out,err:=exec.Command("bash","-c",os.Getenv("RESTART")).CombinedOutput(); t.Log(string(out),err)}
 restart()
 require.Eventually(t, func() bool { return b.Ready(t.Context(),p)==nil }, 2*time.Minute, 100*time.Millisecond)
 out,err:=b.Run(t.Context(),backendtest.Prompt(t,solid(78)),nil,newRecorder()); require.NoError(t,err); t.Log("after restart", out.Files)
 // kill mid-run
 slow:=backendtest.Prompt(t,tiled(250)); rec:=newRecorder()
 end:=make(chan error,1)
 go func(){ _,err:=b.Run(t.Context(),slow,nil,rec); end<-err }()
 f:=&fixture{T:t,b:b,rec:rec}; f.started()
 t0=time.Now(); restart()
 err=<-end; t.Log("killed:", time.Since(t0), err, err.(*backend.Error).Ran)
}
