// SigV4 of a request for COS, for nginx-njs.conf. The key of the day is derived each time, as a variable of njs lives
// no longer than its request.
import crypto from 'crypto';

const ACCESS_KEY = 'AKIDEXAMPLEEXAMPLEEXAMPLEEXAMPLEEXAMPLE';
const SECRET_KEY = 'SECRETEXAMPLESECRETEXAMPLESECRET';
const HOST = '@COS@';
const TOKEN = '@TOKEN@';
const SIGNED = 'host;x-amz-content-sha256;x-amz-date;x-amz-security-token';

function hmac(key, text, encoding) {
    return crypto.createHmac('sha256', key).update(text).digest(encoding);
}

function date(r) {
    return new Date().toISOString().replace(/[:-]|\.\d{3}/g, '');
}

function authorization(r) {
    const now = r.variables.amz_date;
    const scope = `${now.substring(0, 8)}/ap-guangzhou/s3/aws4_request`;
    const headers = `host:${HOST}\nx-amz-content-sha256:UNSIGNED-PAYLOAD\nx-amz-date:${now}\nx-amz-security-token:${TOKEN}\n`;
    const canonical = `${r.method}\n${r.uri}\n\n${headers}\n${SIGNED}\nUNSIGNED-PAYLOAD`;
    const digest = crypto.createHash('sha256').update(canonical).digest('hex');
    const key = scope.split('/').reduce((key, part) => hmac(key, part), `AWS4${SECRET_KEY}`);
    const signature = hmac(key, `AWS4-HMAC-SHA256\n${now}\n${scope}\n${digest}`, 'hex');
    return `AWS4-HMAC-SHA256 Credential=${ACCESS_KEY}/${scope}, SignedHeaders=${SIGNED}, Signature=${signature}`;
}

export default { authorization, date };
