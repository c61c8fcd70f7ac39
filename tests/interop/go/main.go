// AWS SDK for Go v2 with default settings. Reads tasks from standard input, one JSON object a line, and
// writes a line for each: {"done": …} or {"refused": …}.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	managed "github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

type request struct {
	Way, Client, Bucket, Key, Prefix, File, Body, Range, Call string
	ChecksumAlgorithm, ChecksumMode                           string
	PageSize                                                  int32
	PartSize                                                  int64
	Delete                                                    struct{ Objects []struct{ Key string } }
}

type program struct{ clients map[string]*s3.Client }

// body opens the file as the SDK's callers do: as bytes in memory, or as a file to stream.
func (r request) body() (io.Reader, error) {
	if r.Body == "stream" {
		return os.Open(r.File)
	}
	data, err := os.ReadFile(r.File)
	return bytes.NewReader(data), err
}

func optional(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

func (p program) put(ctx context.Context, client *s3.Client, r request) (any, error) {
	body, err := r.body()
	if err != nil {
		return nil, err
	}
	done, err := client.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &r.Bucket, Key: &r.Key, Body: body, ChecksumAlgorithm: types.ChecksumAlgorithm(r.ChecksumAlgorithm),
	})
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"ChecksumCRC32": done.ChecksumCRC32, "ChecksumCRC32C": done.ChecksumCRC32C, "ChecksumCRC64NVME": done.ChecksumCRC64NVME,
		"ChecksumSHA1": done.ChecksumSHA1, "ChecksumSHA256": done.ChecksumSHA256,
	}, nil
}

func (p program) upload(ctx context.Context, client *s3.Client, r request) (any, error) {
	body, err := r.body()
	if err != nil {
		return nil, err
	}
	transfer := transfermanager.New(client, func(o *transfermanager.Options) { o.PartSizeBytes = r.PartSize })
	_, err = transfer.UploadObject(ctx, &transfermanager.UploadObjectInput{
		Bucket: &r.Bucket, Key: &r.Key, Body: body, ChecksumAlgorithm: managed.ChecksumAlgorithm(r.ChecksumAlgorithm),
	})
	return nil, err
}

// get reads a range with the client, and a whole object with the transfer manager, which asks for parts.
func (p program) get(ctx context.Context, client *s3.Client, r request) (any, error) {
	file, err := os.Create(r.File)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if r.Range == "" {
		transfer := transfermanager.New(client)
		_, err = transfer.DownloadObject(ctx, &transfermanager.DownloadObjectInput{Bucket: &r.Bucket, Key: &r.Key, WriterAt: file})
		return nil, err
	}
	object, err := client.GetObject(ctx, &s3.GetObjectInput{Bucket: &r.Bucket, Key: &r.Key, Range: &r.Range})
	if err != nil {
		return nil, err
	}
	defer object.Body.Close()
	_, err = io.Copy(file, object.Body)
	return nil, err
}

func (p program) list(ctx context.Context, client *s3.Client, r request) (any, error) {
	input := s3.ListObjectsV2Input{Bucket: &r.Bucket, Prefix: optional(r.Prefix)}
	if r.PageSize > 0 {
		input.MaxKeys = &r.PageSize
	}
	pages := [][]string{}
	for pager := s3.NewListObjectsV2Paginator(client, &input); pager.HasMorePages(); {
		page, err := pager.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		keys := []string{}
		for _, object := range page.Contents {
			keys = append(keys, *object.Key)
		}
		pages = append(pages, keys)
	}
	return pages, nil
}

func (p program) remove(ctx context.Context, client *s3.Client, r request) (any, error) {
	doomed := types.Delete{}
	for _, object := range r.Delete.Objects {
		doomed.Objects = append(doomed.Objects, types.ObjectIdentifier{Key: aws.String(object.Key)})
	}
	done, err := client.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: &r.Bucket, Delete: &doomed})
	if err != nil {
		return nil, err
	}
	if len(done.Errors) > 0 {
		return nil, fmt.Errorf("%d keys are left, such as %s", len(done.Errors), *done.Errors[0].Key)
	}
	return map[string]any{"Deleted": done.Deleted}, nil
}

func (p program) sign(ctx context.Context, client *s3.Client, r request) (any, error) {
	signer := s3.NewPresignClient(client, s3.WithPresignExpires(time.Minute))
	if r.Call == "put" {
		signed, err := signer.PresignPutObject(ctx, &s3.PutObjectInput{Bucket: &r.Bucket, Key: &r.Key})
		if err != nil {
			return nil, err
		}
		return signed.URL, nil
	}
	signed, err := signer.PresignGetObject(ctx, &s3.GetObjectInput{Bucket: &r.Bucket, Key: &r.Key})
	if err != nil {
		return nil, err
	}
	return signed.URL, nil
}

func (p program) do(ctx context.Context, line []byte) (any, error) {
	r := request{Client: "default"}
	if err := json.Unmarshal(line, &r); err != nil {
		return nil, err
	}
	ways := map[string]func(context.Context, *s3.Client, request) (any, error){
		"put": p.put, "upload": p.upload, "get": p.get, "list": p.list, "remove": p.remove, "sign": p.sign,
	}
	way, known := ways[r.Way]
	if !known {
		return nil, fmt.Errorf("no way %q", r.Way)
	}
	return way(ctx, p.clients[r.Client], r)
}

func main() {
	ctx := context.Background()
	settings, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		panic(err)
	}
	here := func(o *s3.Options) {
		o.BaseEndpoint = aws.String(os.Getenv("ENDPOINT"))
		o.UsePathStyle = true
		o.DisableLogOutputChecksumValidationSkipped = true // a line for each object by parts
	}
	required := func(o *s3.Options) {
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
	}
	p := program{map[string]*s3.Client{
		"default":  s3.NewFromConfig(settings, here),
		"required": s3.NewFromConfig(settings, here, required),
	}}
	results := json.NewEncoder(os.Stdout)
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		done, err := p.do(ctx, lines.Bytes())
		result := map[string]any{"done": done}
		if err != nil {
			result = map[string]any{"refused": err.Error()}
		}
		if err := results.Encode(result); err != nil {
			panic(err)
		}
	}
}
