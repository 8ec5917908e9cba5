package client_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/comfyd/comfyd/client"
)

// Run a workflow and write its images, whatever happens to the server in between.
func Example() {
	ctx := context.Background()
	workflow, err := os.ReadFile("workflow.json") // API format
	if err != nil {
		log.Fatal(err)
	}
	c := client.New("http://127.0.0.1:8080", os.Getenv("COMFYD_API_KEY"))
	job, err := c.Submit(ctx, client.SubmitRequest{Workflow: workflow})
	if err != nil {
		log.Fatal(err)
	}
	status, err := c.Wait(ctx, job.ID, func(s client.Status) { fmt.Println(s.Phase) })
	if err != nil {
		log.Fatal(err)
	}
	if err := status.Err(); err != nil {
		log.Fatal(err) // why the job failed
	}
	saved, err := c.Save(ctx, status, "renders")
	for _, file := range saved {
		fmt.Println(file.Path)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// An input file that the workflow calls "photo.png".
func ExampleClient_Upload() {
	ctx := context.Background()
	c := client.New("http://127.0.0.1:8080", os.Getenv("COMFYD_API_KEY"))
	photo, err := os.Open("/home/me/portrait.png")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = photo.Close() }()
	input, err := c.Upload(ctx, "photo.png", photo)
	if err != nil {
		log.Fatal(err)
	}
	_, err = c.Submit(ctx, client.SubmitRequest{
		Workflow: []byte(`{"1":{"class_type":"LoadImage","inputs":{"image":"photo.png"}},"2":{"class_type":"PreviewImage","inputs":{"images":["1",0]}}}`),
		Images:   []client.InputFile{input},
	})
	if err != nil {
		log.Fatal(err)
	}
}
