package catalog

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/editor"
)

// fixture is a made-up /object_info, in the shape of 0.3.75's, that knows the classes of the corpus.
func fixture(t testing.TB) *Catalog {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "object_info.json"))
	require.NoError(t, err)
	c, err := Parse(raw)
	require.NoError(t, err)
	return c
}

func graph(t testing.TB, s string) *comfy.Graph {
	t.Helper()
	g, err := comfy.ParseGraph([]byte(s))
	require.NoError(t, err)
	return g
}

func TestParse(t *testing.T) {
	c := fixture(t)
	require.True(t, c.Has("SaveImage"))
	require.True(t, c.Has("Odder"), "a class that cannot be read still exists")
	require.False(t, c.Has("saveimage"))
	g := graph(t, `{"10":{"class_type":"SaveImage","inputs":{}},"9":{"class_type":"PreviewImage","inputs":{}},"1":{"class_type":"EmptyImage","inputs":{}},"2":{"class_type":"Gone","inputs":{}}}`)
	require.Equal(t, []string{"9", "10"}, c.OutputNodes(g))
	for _, bad := range []string{"", "null", "{}", "[]", `{"a":`, "<html>"} {
		_, err := Parse([]byte(bad))
		require.ErrorContains(t, err, "/object_info", bad)
	}
	_, err := Parse([]byte(`{"A":{"input":{"required":{"x":["FLOAT",{"max":Infinity,"default":NaN}]}}}}`))
	require.NoError(t, err)
}

func TestSanitize(t *testing.T) {
	for in, want := range map[string]string{
		`{"a":NaN}`:                        `{"a":null}`,
		`[NaN,-Infinity, Infinity ]`:       `[null,null, null ]`,
		`{"NaN":"Infinity \" NaN","b":-1}`: `{"NaN":"Infinity \" NaN","b":-1}`,
		`{"a":"\\","b":NaN}`:               `{"a":"\\","b":null}`,
		`{"a":"NaN`:                        `{"a":"NaN`,
		`{"a":-1,"b":"x-Infinity"}`:        `{"a":-1,"b":"x-Infinity"}`,
		``:                                 ``,
	} {
		require.Equal(t, want, string(Sanitize([]byte(in))), in)
	}
	clean := []byte(`{"a":"NaN"}`)
	require.Same(t, &clean[0], &Sanitize(clean)[0], "a copy where none is needed")
}

// entry of the corpus' index.
type entry struct {
	Name, File, Kind string
	Poison, Slow     bool
	Expect           struct{ Status string }
	Uploads          []json.RawMessage
}

func corpus(t testing.TB) []entry {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "testdata", "index.json"))
	require.NoError(t, err)
	var list []entry
	require.NoError(t, json.Unmarshal(raw, &list))
	require.Greater(t, len(list), 40)
	return list
}

// uploads are the names by which the graph calls the entry's input files.
func (e entry) uploads(t testing.TB) (names []string) {
	for _, raw := range e.Uploads {
		var name string
		if json.Unmarshal(raw, &name) != nil {
			var u struct{ File, Subfolder string }
			require.NoError(t, json.Unmarshal(raw, &u))
			name = u.Subfolder + "/" + u.File
		}
		names = append(names, name)
	}
	return names
}

// converted is a workflow in API format, also where the corpus has it as the editor saves it.
func converted(c *Catalog, workflow []byte) ([]byte, error) {
	_, err := comfy.ParseGraph(workflow)
	var other *comfy.GraphError
	if errors.As(err, &other) && other.File != nil {
		return editor.Convert(other.File, c, editor.Options{Pick: func(int) int { return 0 }})
	}
	return workflow, nil
}

// verdict is what comfyd says of a workflow before it is run.
func verdict(c *Catalog, workflow []byte, inputs []string) string {
	workflow, err := converted(c, workflow)
	if err != nil {
		return err.Error()
	}
	g, err := comfy.ParseGraph(workflow)
	if err != nil {
		return err.Error()
	}
	if bad := PathErrors(g, c, inputs); bad != nil {
		return bad.Summary()
	}
	if bad := c.Check(g, inputs); bad != nil {
		return bad.Summary()
	}
	return ""
}

func TestCorpus(t *testing.T) {
	c := fixture(t)
	for _, e := range corpus(t) {
		t.Run(e.Name, func(t *testing.T) {
			workflow, err := os.ReadFile(filepath.Join("..", "..", "testdata", e.File))
			require.NoError(t, err)
			why := verdict(c, workflow, e.uploads(t))
			require.Equal(t, e.Expect.Status == "REJECTED", why != "", "%s: %s", e.Expect.Status, why)
			if why != "" {
				t.Log(why)
			}
		})
	}
}

// with builds a graph of one node under test, fed and saved as needed.
func with(class, inputs string) string {
	return `{"img":{"class_type":"EmptyImage","inputs":{"width":64,"height":64,"batch_size":1,"color":0}},
		"lat":{"class_type":"EmptyLatentImage","inputs":{"width":64,"height":64,"batch_size":1}},
		"str":{"class_type":"PrimitiveString","inputs":{"value":"x"}},
		"ven":{"class_type":"VendorNode","inputs":{"size":1,"mode":"a","image":["img",0]}},
		"odd":{"class_type":"Odd","inputs":{"x":1,"y":"any","z":null}},
		"n":{"class_type":"` + class + `","inputs":{` + inputs + `}},
		"out":{"class_type":"PreviewAny","inputs":{"source":["n",0]}}}`
}

func TestCheck(t *testing.T) {
	c := fixture(t)
	empty := func(width string) string {
		return with("EmptyImage", `"width":`+width+`,"height":64,"batch_size":1,"color":0`)
	}
	for name, k := range map[string]struct {
		graph  string
		inputs []string
		// types of the errors at node "n", none where it is accepted; words are in the summary
		types []string
		words []string
	}{
		"sound":              {graph: empty("64")},
		"text for a number":  {graph: empty(`"64"`)},
		"odd text":           {graph: empty(`" +6_4\n"`)},
		"fraction":           {graph: empty("64.9")},
		"true":               {graph: empty("true")},
		"other digits":       {graph: empty(`"٦٤"`)},
		"wrapped":            {graph: empty(`{"__value__":"64"}`)},
		"word":               {graph: empty(`"abc"`), types: []string{"invalid_input_type"}, words: []string{`Input "width" of node "n" (EmptyImage)`, `"abc"`, "INT"}},
		"fraction as text":   {graph: empty(`"64.0"`), types: []string{"invalid_input_type"}},
		"null":               {graph: empty("null"), types: []string{"invalid_input_type"}},
		"object":             {graph: empty("{}"), types: []string{"invalid_input_type"}},
		"wrapped list":       {graph: empty(`{"__value__":[1,2]}`), types: []string{"invalid_input_type"}},
		"infinity as text":   {graph: empty(`"inf"`), types: []string{"invalid_input_type"}},
		"too many digits":    {graph: empty(`"` + strings.Repeat("1", 5000) + `"`), types: []string{"invalid_input_type"}},
		"too small":          {graph: empty("0"), types: []string{"value_smaller_than_min"}, words: []string{"is 0", "least allowed, 1"}},
		"false is 0":         {graph: empty("false"), types: []string{"value_smaller_than_min"}},
		"too big":            {graph: empty("8193"), types: []string{"value_bigger_than_max"}, words: []string{"most allowed, 8192"}},
		"too big by far":     {graph: empty("1e300"), types: []string{"value_bigger_than_max"}},
		"cut to the maximum": {graph: empty("8192.9")},
		"empty list":         {graph: empty("[]"), types: []string{"bad_linked_input"}},
		"list of three":      {graph: empty(`["str",0,1]`), types: []string{"bad_linked_input"}},
		"number as ID":       {graph: empty(`[7,0]`), types: []string{"exception_during_validation"}},
		"largest seed":       {graph: with("ImageAddNoise", `"image":["img",0],"seed":18446744073709551615,"strength":1`)},
		"seed too large":     {graph: with("ImageAddNoise", `"image":["img",0],"seed":18446744073709551616,"strength":1`), types: []string{"value_bigger_than_max"}},
		"float as text":      {graph: with("ImageAddNoise", `"image":["img",0],"seed":0,"strength":" .5e-1_0 "`)},
		"float infinite":     {graph: with("ImageAddNoise", `"image":["img",0],"seed":0,"strength":"-Infinity"`), types: []string{"value_smaller_than_min"}},
		"float not a number": {graph: with("ImageAddNoise", `"image":["img",0],"seed":0,"strength":"nan"`)},
		"float too large":    {graph: with("ImageAddNoise", `"image":["img",0],"seed":0,"strength":1`+strings.Repeat("0", 400)), types: []string{"invalid_input_type"}},
		"float word":         {graph: with("ImageAddNoise", `"image":["img",0],"seed":0,"strength":"0x1"`), types: []string{"invalid_input_type"}},
		"any text":           {graph: with("PrimitiveString", `"value":{"a":[1]}`)},
		"text for an image":  {graph: with("ImageInvert", `"image":"foo"`)},
		"missing":            {graph: with("ImageInvert", `"imge":["img",0]`), types: []string{"required_input_missing"}, words: []string{`lacks the required input "image" of type IMAGE`, `it has "imge"`}},
		"optional missing":   {graph: with("ImageCompositeMasked", `"destination":["img",0],"source":["img",0],"x":0,"y":0,"resize_source":"yes"`)},
		"three at once":      {graph: with("EmptyImage", `"width":0,"height":"x"`), types: []string{"required_input_missing", "required_input_missing", "invalid_input_type", "value_smaller_than_min"}},

		"last output":              {graph: with("ImageInvert", `"image":["img",-1]`)},
		"output false":             {graph: with("ImageInvert", `"image":["img",false]`)},
		"output beyond":            {graph: with("ImageInvert", `"image":["img",1]`), types: []string{"exception_during_validation"}, words: []string{"one output, 0"}},
		"output before":            {graph: with("ImageInvert", `"image":["img",-2]`), types: []string{"exception_during_validation"}},
		"output true":              {graph: with("ImageInvert", `"image":["img",true]`), types: []string{"exception_during_validation"}},
		"output 0.0":               {graph: with("ImageInvert", `"image":["img",0.0]`), types: []string{"exception_during_validation"}},
		"output as text":           {graph: with("ImageInvert", `"image":["img","0"]`), types: []string{"exception_during_validation"}},
		"missing node, text slot":  {graph: with("ImageInvert", `"image":["zzz","0"]`), types: []string{"exception_during_validation"}, words: []string{`"zzz"`}},
		"missing node":             {graph: with("ImageInvert", `"image":["zzz",0]`), types: []string{"exception_during_validation"}},
		"missing node, undeclared": {graph: with("ImageInvert", `"image":["img",0],"foo":["zzz",true]`), types: []string{"exception_during_validation"}},
		"circle, undeclared":       {graph: with("ImageInvert", `"image":["img",0],"foo":["n",0]`), types: []string{"dependency_cycle"}},
		"type mismatch":            {graph: with("ImageInvert", `"image":["lat",0]`), types: []string{"return_type_mismatch"}, words: []string{"takes IMAGE", "gives LATENT"}},
		"link for a choice":        {graph: with("ImageToMask", `"image":["img",0],"channel":["str",0]`), types: []string{"return_type_mismatch"}},
		"wildcard source":          {graph: with("ImageInvert", `"image":["ven",0]`)},
		"vendor's union":           {graph: with("ImageInvert", `"image":["ven",1]`)},
		"vendor's other output":    {graph: with("ImageInvert", `"image":["ven",7]`)},
		"class that is not known":  {graph: with("ImageInvert", `"image":["odd",1]`)},

		"choice":               {graph: with("ImageToMask", `"image":["img",0],"channel":"red"`)},
		"no choice":            {graph: with("ImageToMask", `"image":["img",0],"channel":"rad"`), types: []string{"value_not_in_list"}, words: []string{`"rad"`, "one of red, green, blue, alpha", "the nearest are red"}},
		"choice of a number":   {graph: with("ImageToMask", `"image":["img",0],"channel":1`), types: []string{"value_not_in_list"}},
		"1.0 is 1":             {graph: with("Sizes", `"size":1.0`)},
		"2.5":                  {graph: with("Sizes", `"size":2.5`)},
		"true is 1":            {graph: with("Sizes", `"size":true`)},
		"null listed":          {graph: with("Sizes", `"size":null`)},
		"2":                    {graph: with("Sizes", `"size":2`), types: []string{"value_not_in_list"}},
		`"1" is not 1`:         {graph: with("Sizes", `"size":"1"`), types: []string{"value_not_in_list"}},
		"missing model":        {graph: with("CheckpointLoaderSimple", `"ckpt_name":"sdxl_base_1.0.safetensors"`), types: []string{"value_not_in_list"}, words: []string{"model file", "models/checkpoints; it has 2 there", "the nearest are folder/sd_xl_base_1.0.safetensors"}},
		"missing newer choice": {graph: with("UpscaleModelLoader", `"model_name":"nope.pth"`)}, // 0.3.75 looks at run time
		"vendor's size":        {graph: with("VendorNode", `"size":99,"mode":"c","image":["lat",0]`)},
		"vendor's missing":     {graph: with("VendorNode", `"size":9,"mode":"c"`), types: []string{"required_input_missing"}},
		"vendor's word":        {graph: with("VendorNode", `"size":"x","mode":"c","image":["img",0]`), types: []string{"invalid_input_type"}},
		"newer dynamic inputs": {graph: with("ResizeLater", `"how":"scale","how.multiplier":2`)},
		"upstream of a dynamic": {graph: `{"n":{"class_type":"ImageInvert","inputs":{}},"r":{"class_type":"ResizeLater","inputs":{"input":["n",0]}},
			"out":{"class_type":"PreviewAny","inputs":{"source":["r",0]}}}`, types: []string{"required_input_missing"}},

		"file listed":                 {graph: with("LoadImage", `"image":"gradient.png"`)},
		"file listed, marked":         {graph: with("LoadImage", `"image":"gradient.png [input]"`)},
		"file of the job":             {graph: with("LoadImage", `"image":"mine.png"`), inputs: []string{"mine.png"}},
		"file of the job, marked":     {graph: with("LoadImage", `"image":"mine.png [input]"`), inputs: []string{"mine.png"}},
		"file of the job, in a list":  {graph: with("CheckpointLoaderSimple", `"ckpt_name":"mine.safetensors"`), inputs: []string{"mine.safetensors"}},
		"file in a subfolder":         {graph: with("LoadImage", `"image":"a/b.png"`)},
		"file of an unlisted ending":  {graph: with("LoadImage", `"image":"x.heic"`)},
		"file in another case":        {graph: with("LoadImage", `"image":"Gradient.PNG"`)},
		"file by its content":         {graph: with("LoadImage", `"image":"blake3:00ff.png"`)},
		"file missing":                {graph: with("LoadImage", `"image":"gradiant.png"`), types: []string{"custom_validation_failed"}, words: []string{`"gradiant.png"`, "came with the job", "the nearest are gradient.png"}},
		"file missing, marked":        {graph: with("LoadImage", `"image":"x.png [input]"`), types: []string{"custom_validation_failed"}},
		"file a number":               {graph: with("LoadImage", `"image":5`), types: []string{"custom_validation_failed"}, words: []string{"a text, but is 5"}},
		"video missing":               {graph: with("LoadVideo", `"file":"x.mp4"`), types: []string{"custom_validation_failed"}},
		"latent missing":              {graph: with("LoadLatent", `"latent":"x.latent"`), types: []string{"custom_validation_failed"}},
		"mask's other input":          {graph: with("LoadImageMask", `"image":"gradient.png","channel":"purple"`), types: []string{"value_not_in_list"}},
		"file of the output folder":   {graph: with("LoadImageOutput", `"image":"x.png [output]"`)},
		"vendor's file":               {graph: with("VendorVideo", `"video":"x.mp4"`)},
		"choices made in the browser": {graph: with("CustomCombo", `"choice":"x"`)},
	} {
		t.Run(name, func(t *testing.T) {
			bad := c.Check(graph(t, k.graph), k.inputs)
			types := []string{}
			for _, e := range bad["n"].Errors {
				types = append(types, e.Type)
				require.NotEmpty(t, e.Message)
				require.NotEmpty(t, e.Details)
			}
			slices.Sort(types)
			require.ElementsMatch(t, k.types, types, bad.Summary())
			if len(k.types) == 0 {
				require.Nil(t, bad)
			} else {
				require.Contains(t, bad["n"].DependentOutputs, "out")
			}
			for _, w := range k.words {
				require.Contains(t, bad.Summary(), w)
			}
		})
	}
}

func TestCheckLeavesAloneWhatIsNotRun(t *testing.T) {
	c := fixture(t)
	sound := `"1":{"class_type":"EmptyImage","inputs":{"width":64,"height":64,"batch_size":1,"color":0}},"2":{"class_type":"PreviewImage","inputs":{"images":["1",0]}}`
	for _, spare := range []string{
		`"3":{"class_type":"EmptyImage","inputs":{"width":-1}}`,
		`"3":{"class_type":"ImageInvert","inputs":{"image":["99",0]}}`,
		`"3":{"class_type":"ImageInvert","inputs":{"image":["3",0]}}`,
		`"3":{"class_type":"ImageInvert","inputs":{"image":[1,0]}}`,
	} {
		require.Nil(t, c.Check(graph(t, "{"+sound+","+spare+"}"), nil), spare)
	}
	bad := c.Check(graph(t, "{"+sound+`,"3":{"class_type":"SaveImages","inputs":{}}}`), nil)
	require.Equal(t, "invalid_prompt", bad["3"].Errors[0].Type, "ComfyUI refuses unknown classes wherever they stand")
	require.Contains(t, bad.Summary(), "SaveImages does not exist")
	require.Equal(t, []string{"SaveImage"}, bad["3"].Errors[0].ExtraInfo["nearest"])
	// A second output that cannot be made is an error although the first can: ComfyUI would drop it in silence.
	bad = c.Check(graph(t, "{"+sound+`,"3":{"class_type":"SaveImage","inputs":{"images":["1",0]}}}`), nil)
	require.Len(t, bad, 1)
	require.Equal(t, []string{"3"}, bad["3"].DependentOutputs)
}

func TestCheckTellsThatThereIsNoOutput(t *testing.T) {
	bad := fixture(t).Check(graph(t, `{"1":{"class_type":"EmptyImage","inputs":{}}}`), nil)
	require.Equal(t, "prompt_no_outputs", bad[comfy.WholeGraph].Errors[0].Type)
	require.Contains(t, bad.Summary(), "no output node")
}

func TestNewerComfyUIChecksItsChoices(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("testdata", "object_info.json"))
	require.NoError(t, err)
	c, err := Parse([]byte(strings.Replace(string(raw), `"python_module":"nodes"`, `"search_aliases":null,"python_module":"nodes"`, 1)))
	require.NoError(t, err)
	bad := c.Check(graph(t, with("UpscaleModelLoader", `"model_name":"4x_UltraSharp"`)), nil)
	require.Equal(t, "value_not_in_list", bad["n"].Errors[0].Type)
	require.Contains(t, bad.Summary(), "models/upscale_models; it has 1 there; the nearest are 4x-UltraSharp.pth")
	require.Nil(t, c.Check(graph(t, with("CustomCombo", `"choice":"x"`)), nil))
	require.Nil(t, c.Check(graph(t, with("UpscaleModelLoader", `"model_name":"4x-UltraSharp.pth"`)), nil))
}

func TestCheckOfAbsurdGraphsIsBounded(t *testing.T) {
	var b strings.Builder
	for i := range 20_000 {
		b.WriteString(`,"` + strings.Repeat("x", i%50) + string(rune('0'+i%10)) + "-" + strings.Repeat("y", i/50) + `":{"class_type":"Class` + strings.Repeat("z", i%180) + `","inputs":{}}`)
	}
	bad := fixture(t).Check(graph(t, "{"+b.String()[1:]+"}"), nil)
	require.Len(t, bad, maxNodes)
	require.Less(t, len(bad.Summary()), 4000)
	long := strings.Repeat("x", 1<<20)
	bad = fixture(t).Check(graph(t, with("ImageToMask", `"image":["img",0],"channel":"`+long+`"`)), nil)
	body, err := json.Marshal(bad)
	require.NoError(t, err)
	require.Less(t, len(body), 4000)
}
