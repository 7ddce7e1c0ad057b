// Sends records of standard input with Java's own producer and its default settings; says how many were accepted.
// Run by test_bursts.py as a single source file, with Kafka's jars on the class path.

import java.io.BufferedInputStream;
import java.io.DataInputStream;
import java.io.EOFException;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public class Burst {
    public static void main(String[] arguments) throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", arguments[0]);
        AtomicInteger accepted = new AtomicInteger();
        try (var producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
                var input = new DataInputStream(new BufferedInputStream(System.in))) {
            while (true) {
                byte[] key;
                try {
                    key = input.readNBytes(input.readInt());
                } catch (EOFException end) {
                    break;
                }
                byte[] value = input.readNBytes(input.readInt());
                producer.send(new ProducerRecord<>(arguments[1], key, value), (where, error) -> {
                    if (error == null) {
                        accepted.incrementAndGet();
                    }
                });
            }
            producer.flush();
        }
        System.out.println(accepted.get());
    }
}
